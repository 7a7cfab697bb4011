"""Where the containers of SageMaker's built-in algorithms are: registry addresses by region."""

from __future__ import annotations

__all__ = ["ALGORITHMS", "image_uri"]

ALGORITHMS = ("factorization-machines", "knn")

# both algorithms share the accounts (SageMaker Python SDK, image_uri_config)
_ACCOUNTS = {
    "af-south-1": "455444449433",
    "ap-east-1": "286214385809",
    "ap-northeast-1": "351501993468",
    "ap-northeast-2": "835164637446",
    "ap-northeast-3": "867004704886",
    "ap-south-1": "991648021394",
    "ap-south-2": "628508329040",
    "ap-southeast-1": "475088953585",
    "ap-southeast-2": "712309505854",
    "ap-southeast-3": "951798379941",
    "ap-southeast-4": "106583098589",
    "ca-central-1": "469771592824",
    "ca-west-1": "190319476487",
    "cn-north-1": "390948362332",
    "cn-northwest-1": "387376663083",
    "eu-central-1": "664544806723",
    "eu-central-2": "680994064768",
    "eu-north-1": "669576153137",
    "eu-south-1": "257386234256",
    "eu-south-2": "104374241257",
    "eu-west-1": "438346466558",
    "eu-west-2": "644912444149",
    "eu-west-3": "749696950732",
    "il-central-1": "898809789911",
    "me-central-1": "272398656194",
    "me-south-1": "249704162688",
    "sa-east-1": "855470959533",
    "us-east-1": "382416733822",
    "us-east-2": "404615174143",
    "us-gov-east-1": "237065988967",
    "us-gov-west-1": "226302683700",
    "us-iso-east-1": "490574956308",
    "us-isob-east-1": "765400339828",
    "us-isof-east-1": "108575199400",
    "us-isof-south-1": "124985052026",
    "us-west-1": "632365934929",
    "us-west-2": "174872318107",
}
_SUFFIXES = {  # of the partitions other than aws, by the beginning of the region's name
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
}


def image_uri(algorithm: str, region: str) -> str:
    """Return the address of an algorithm's container image.

    Parameters
    ----------
    algorithm : {"factorization-machines", "knn"}
    region : str

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For another algorithm, or a region that is not in the table.

    Examples
    --------
    >>> image_uri("knn", "eu-west-1")
    '438346466558.dkr.ecr.eu-west-1.amazonaws.com/knn:1'
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}: there are {', '.join(ALGORITHMS)}")
    if region not in _ACCOUNTS:
        raise ValueError(
            f"the address of {algorithm} in region {region!r} is not known: look it up in AWS's "
            f'list of registry paths and pass image_uri={{"{algorithm}": "…"}}'
        )
    own = [suffix for beginning, suffix in _SUFFIXES.items() if region.startswith(beginning)]
    suffix = own[0] if own else "amazonaws.com"
    return f"{_ACCOUNTS[region]}.dkr.ecr.{region}.{suffix}/{algorithm}:1"
