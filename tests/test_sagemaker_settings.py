"""What is asked of SageMaker: settings, addresses, requests and names, before anything is sent.

The tables are AWS's ("Factorization Machines Hyperparameters", "k-NN Hyperparameters", "Docker
Registry Paths"), the form of requests is that of botocore's own description of the service.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

import fmknn
from fmknn.backends.sagemaker.backend import SageMakerBackend
from fmknn.backends.sagemaker.hyperparameters import fm_hyperparameters, knn_hyperparameters
from fmknn.backends.sagemaker.images import image_uri
from fmknn.backends.sagemaker.requests import (
    Resources,
    model_request,
    require_bucket,
    require_instance_type,
    require_role,
    training_request,
    transform_request,
)
from fmknn.backends.sagemaker.run import fingerprint, require_run_id

ROLE = "arn:aws:iam::123456789012:role/service-role/Train"
IMAGE = "382416733822.dkr.ecr.us-east-1.amazonaws.com/knn:1"


# --- factorization machines: hyperparameters --------------------------------------------------

POSITIVE, NOT_NEGATIVE, ANY = (lambda x: x > 0), (lambda x: x >= 0), math.isfinite
GROUPS = ("bias", "linear", "factors")
FM_TABLE = {  # name: (type of a value, what is valid, the container's default or None)
    "feature_dim": (int, POSITIVE, None),
    "num_factors": (int, POSITIVE, None),
    "epochs": (int, POSITIVE, 1),
    "mini_batch_size": (int, POSITIVE, 1000),
    "bias_lr": (float, NOT_NEGATIVE, 0.1),
    "linear_lr": (float, NOT_NEGATIVE, 0.001),
    "factors_lr": (float, NOT_NEGATIVE, 0.0001),
    "bias_wd": (float, NOT_NEGATIVE, 0.01),
    "linear_wd": (float, NOT_NEGATIVE, 0.001),
    "factors_wd": (float, NOT_NEGATIVE, 0.00001),
    "bias_init_sigma": (float, NOT_NEGATIVE, 0.01),
    "linear_init_sigma": (float, NOT_NEGATIVE, 0.01),
    "factors_init_sigma": (float, NOT_NEGATIVE, 0.001),
    **{f"{group}_init_scale": (float, NOT_NEGATIVE, None) for group in GROUPS},
    **{f"{group}_init_value": (float, ANY, None) for group in GROUPS},
    "clip_gradient": (float, ANY, None),
    "eps": (float, ANY, None),
    "rescale_grad": (float, ANY, None),
}
FM_CHOICES = {
    "predictor_type": ("regressor", "binary_classifier"),
    **{f"{group}_init_method": ("uniform", "normal", "constant") for group in GROUPS},
}
RATES = st.floats(0, 512)


@st.composite
def adams(draw):
    """Settings of Adam that SageMaker has."""
    chosen = {
        "epochs": draw(st.integers(1, 10**6)),
        "mini_batch_size": draw(st.integers(1, 10**6)),
        **{f"{g}_{what}": draw(RATES) for g in GROUPS for what in ("lr", "wd")},
    }
    for group in GROUPS:
        method = draw(st.sampled_from(["normal", "uniform", "constant"]))
        chosen[f"{group}_init_method"] = method
        chosen[f"{group}_init_sigma"] = draw(RATES)
        if method == "uniform" or draw(st.booleans()):
            chosen[f"{group}_init_scale"] = draw(RATES)
        if method == "constant" or draw(st.booleans()):
            chosen[f"{group}_init_value"] = draw(st.floats(-1e6, 1e6))
    for name in ("clip_gradient", "eps", "rescale_grad"):
        chosen[name] = draw(st.none() | RATES)
    return fmknn.Adam.sagemaker(**chosen)


def fm(config=None, loss="squared", n_factors=8, n_features=20):
    config = fmknn.Adam.sagemaker() if config is None else config
    return fm_hyperparameters(config, loss=loss, n_factors=n_factors, n_features=n_features)


@given(config=adams(), loss=st.sampled_from(["squared", "logistic"]), n=st.integers(1, 10**7))
@settings(max_examples=80)
def test_fm_settings_are_texts_of_the_table_and_say_exactly_what_was_asked(config, loss, n):
    sent = fm(config, loss, n_factors=5, n_features=n)
    asked = {**config.get_params(), "feature_dim": n, "num_factors": 5}
    for name, text in sent.items():
        assert isinstance(text, str) and len(text) <= 2500
        if name in FM_CHOICES:
            assert text in FM_CHOICES[name]
            continue
        kind, valid, _ = FM_TABLE[name]
        assert valid(kind(text)), f"{name}={text}"
        assert kind(text) == asked[name], "the very number, to the last bit"
    assert sent["predictor_type"] == {"squared": "regressor", "logistic": "binary_classifier"}[loss]
    for group in GROUPS:
        method = asked[f"{group}_init_method"]
        assert sent[f"{group}_init_method"] == method
        needed = {"normal": "sigma", "uniform": "scale", "constant": "value"}[method]
        assert float(sent[f"{group}_init_{needed}"]) == asked[f"{group}_init_{needed}"]


@given(config=adams())
@settings(max_examples=40)
def test_what_is_not_sent_is_the_containers_default(config):
    sent = fm(config)
    for name, (_, _, default) in FM_TABLE.items():
        if name in sent or "init" in name:  # a start that is drawn otherwise has no such setting
            continue
        value = config.get_params()[name]
        assert value == default or (name, value) == ("eps", 1e-8)  # MXNet's Adam


def test_the_defaults_are_the_containers():
    sent = fm(n_factors=64, n_features=2623)
    assert sent["feature_dim"] == "2623" and sent["num_factors"] == "64"
    for name, (kind, _, default) in FM_TABLE.items():
        if default is not None:
            assert kind(sent.get(name, default)) == default, name
    assert all(sent.get(f"{group}_init_method", "normal") == "normal" for group in GROUPS)
    assert not set(sent) & {"clip_gradient", "rescale_grad"}


def test_numpy_numbers_are_written_as_numbers():
    config = fmknn.Adam.sagemaker(
        epochs=np.int64(3),
        mini_batch_size=np.int32(7),
        bias_lr=np.float64(0.5),
        eps=np.float32(0.1),
    )
    sent = fm(config, n_factors=np.int64(4), n_features=np.int32(9))
    assert [sent[name] for name in ("epochs", "mini_batch_size", "num_factors", "feature_dim")] == [
        "3",
        "7",
        "4",
        "9",
    ]
    assert sent["bias_lr"] == "0.5"
    assert float(sent["eps"]) == float(np.float32(0.1))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"lr_schedule": "linear"}, "lr_schedule='linear'"),
        ({"shuffle": True}, "shuffle=True"),
        ({"lazy": False}, "lazy=False"),
        ({"damp_above": 3.0}, "damp_above=3.0"),
        ({"standardize": True}, "standardize=True"),
        ({"zero_unseen": True}, "zero_unseen=True"),
        ({"linear_wd": None}, "linear_wd=None"),
        ({"factors_wd": None}, "factors_wd=None"),
        ({"mini_batch_size": None}, "mini_batch_size=None"),
        ({"bias_init_method": "mean"}, "bias_init_method='mean'"),
    ],
)
def test_a_setting_that_the_container_does_not_have_is_refused(setting, word):
    with refused(ValueError, word, "Adam.sagemaker("):
        fm(fmknn.Adam.sagemaker(**setting))


def test_all_that_is_wrong_is_named_at_once():
    words = ("shuffle", "lr_schedule", "standardize", "linear_wd", "mini_batch_size", "mean")
    with refused(ValueError, *words):
        fm(fmknn.Adam())


def test_another_solver_loss_or_no_factors_are_refused():
    class Other(fmknn.Adam):
        pass

    for solver in (Other.sagemaker(), object(), "adam"):
        with refused(ValueError, type(solver).__name__, "Adam.sagemaker()"):
            fm(solver)
    for loss in ("probit", "ordinal", "bpr"):
        with refused(ValueError, loss, "squared", "logistic"):
            fm(loss=loss)
    with refused(ValueError, "n_factors", 0):
        fm(n_factors=0)


# --- k-NN: hyperparameters ---------------------------------------------------------------------


@given(dim=st.integers(1, 2000), n=st.integers(1, 10**7), data=st.data())
@settings(max_examples=40)
def test_knn_indexes_every_item_by_inner_product(dim, n, data):
    k = data.draw(st.integers(1, n))
    sent = knn_hyperparameters(dim=dim, k=k, n_items=n)
    assert sent == {
        "feature_dim": str(dim),
        "k": str(k),
        "sample_size": str(n),  # a smaller one drops items in silence
        "predictor_type": "classifier",
        "index_metric": "INNER_PRODUCT",
        "index_type": "faiss.Flat",
    }


def test_cells_are_of_ivf_only():
    ivf = {"dim": 3, "k": 2, "n_items": 9, "index_type": "faiss.IVFFlat"}
    assert "faiss_index_ivf_nlists" not in knn_hyperparameters(**ivf)
    assert knn_hyperparameters(**ivf, nlists=4)["faiss_index_ivf_nlists"] == "4"
    assert knn_hyperparameters(**ivf)["index_type"] == "faiss.IVFFlat"
    with refused(ValueError, "nlists", "faiss.Flat"):
        knn_hyperparameters(dim=3, k=2, n_items=9, nlists=4)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"index_type": "faiss.IVFPQ"}, ["IVFPQ", "L2", "index_type="]),
        ({"index_type": "faiss.HNSW"}, ["index_type", "faiss.Flat", "faiss.IVFFlat", "HNSW"]),
        ({"index_type": "Flat"}, ["index_type", "'Flat'"]),
        ({"k": 0}, ["k", "1..9", 0]),
        ({"k": -1}, ["k", "1..9", -1]),
        ({"k": 10}, ["k", "1..9", 10]),
        ({"index_type": "faiss.IVFFlat", "nlists": 10}, ["nlists=10", 9]),
        ({"index_type": "faiss.IVFFlat", "nlists": 0}, ["nlists", 0]),
        ({"index_type": "faiss.IVFFlat", "nlists": 2.5}, ["nlists", 2.5]),
        ({"index_type": "faiss.IVFFlat", "nlists": True}, ["nlists", True]),
    ],
)
def test_knn_settings_out_of_range_are_refused(changed, words):
    with refused(ValueError, *words):
        knn_hyperparameters(**{"dim": 3, "k": 2, "n_items": 9, **changed})


# --- images -----------------------------------------------------------------------------------

ACCOUNT_LINES = """
    af-south-1 455444449433, ap-east-1 286214385809, ap-northeast-1 351501993468,
    ap-northeast-2 835164637446, ap-northeast-3 867004704886, ap-south-1 991648021394,
    ap-south-2 628508329040, ap-southeast-1 475088953585, ap-southeast-2 712309505854,
    ap-southeast-3 951798379941, ap-southeast-4 106583098589, ca-central-1 469771592824,
    ca-west-1 190319476487, cn-north-1 390948362332, cn-northwest-1 387376663083,
    eu-central-1 664544806723, eu-central-2 680994064768, eu-north-1 669576153137,
    eu-south-1 257386234256, eu-south-2 104374241257, eu-west-1 438346466558,
    eu-west-2 644912444149, eu-west-3 749696950732, il-central-1 898809789911,
    me-central-1 272398656194, me-south-1 249704162688, sa-east-1 855470959533,
    us-east-1 382416733822, us-east-2 404615174143, us-gov-east-1 237065988967,
    us-gov-west-1 226302683700, us-iso-east-1 490574956308, us-isob-east-1 765400339828,
    us-isof-east-1 108575199400, us-isof-south-1 124985052026, us-west-1 632365934929,
    us-west-2 174872318107
"""
ACCOUNTS = dict(pair.split() for pair in ACCOUNT_LINES.split(","))


def aws_suffixes():
    """The DNS suffix of each region that botocore knows."""
    loaders = pytest.importorskip("botocore.loaders")
    return {
        region: part["outputs"]["dnsSuffix"]
        for part in loaders.Loader().load_data("partitions")["partitions"]
        for region in part["regions"]
        if not region.endswith("-global")
    }


@pytest.mark.parametrize("algorithm", ["factorization-machines", "knn"])
def test_image_addresses_by_region(algorithm):
    suffixes = aws_suffixes()
    image = service().operation_model("CreateModel").input_shape.members["PrimaryContainer"]
    for region, account in ACCOUNTS.items():
        uri = image_uri(algorithm, region)
        assert uri == f"{account}.dkr.ecr.{region}.{suffixes[region]}/{algorithm}:1"
        assert re.fullmatch(image.members["Image"].metadata["pattern"], uri)


def test_an_unknown_region_or_algorithm_is_refused():
    for region in ("mx-central-1", "ap-southeast-7", "", "US-EAST-1"):
        with refused(ValueError, repr(region), "image_uri=", "knn"):
            image_uri("knn", region)
    with refused(ValueError, "xgboost", "factorization-machines", "knn"):
        image_uri("xgboost", "us-east-1")


# --- requests ---------------------------------------------------------------------------------


@functools.cache
def service():
    loaders = pytest.importorskip("botocore.loaders")
    from botocore.model import ServiceModel

    return ServiceModel(loaders.Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def require_valid(operation, request):
    """Types, members, bounds, choices and patterns are those of the service's description."""
    from botocore.validate import ParamValidator

    shape = service().operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    pending = [(operation, request, shape)]
    while pending:
        path, value, shape = pending.pop()
        bounds = shape.metadata
        if shape.type_name == "structure":
            pending += [(f"{path}.{k}", v, shape.members[k]) for k, v in value.items()]
        elif shape.type_name == "list":
            pending += [(path, item, shape.member) for item in value]
        elif shape.type_name == "map":
            pending += [(path, key, shape.key) for key in value]
            pending += [(path, item, shape.value) for item in value.values()]
        elif shape.type_name == "string":
            assert not shape.enum or value in shape.enum, f"{path}={value!r}"
            assert len(value) <= bounds.get("max", len(value)), path
            pattern = bounds.get("pattern", "(?s:.*)")
            for java, python in ((r"\p{L}", "a-zA-Z"), (r"\p{Z}", " "), (r"\p{N}", "0-9")):
                pattern = pattern.replace(java, python)
            assert re.fullmatch(pattern, value), f"{path}={value!r}"
        if shape.type_name in ("integer", "list", "map"):
            size = value if shape.type_name == "integer" else len(value)
            assert bounds.get("min", size) <= size <= bounds.get("max", size), path


VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}
RESOURCES = [
    Resources(ROLE, "ml.m5.large", 1, 30, 3600, {}),
    Resources(ROLE, "ml.m5.large", 1, 30, 3600, {"fmknn:run": "monday", "team": "a b"}),
    Resources(ROLE, "ml.c5.4xlarge", 3, 10, 60, {"t": ""}, "alias/key", VPC),
    Resources("arn:aws-cn:iam::123456789012:role/Train", "ml.g5.2xlarge", 2, 1, 1, {}, "0-1", None),
]
EVERY_RESOURCES = pytest.mark.parametrize("resources", RESOURCES, ids=["bare", "tags", "all", "cn"])


def training(resources, instance_count=1, hyperparameters=None):
    return training_request(
        resources,
        image=IMAGE,
        hyperparameters=fm() if hyperparameters is None else hyperparameters,
        train_uri="s3://bucket/fmknn/run/fm/train/",
        output_uri="s3://bucket/fmknn/run/fm/output/",
        instance_count=instance_count,
    )


def transform(resources, instance_count=1, max_payload_mb=6):
    return transform_request(
        resources,
        model_name="fmknn-run-model-0123",
        input_uri="s3://bucket/in/",
        output_uri="s3://bucket/out/",
        instance_count=instance_count,
        max_payload_mb=max_payload_mb,
    )


@EVERY_RESOURCES
@pytest.mark.parametrize("instance_count", [1, 3])
def test_training_requests(resources, instance_count):
    request = training(resources, instance_count)
    require_valid("CreateTrainingJob", {"TrainingJobName": "fmknn-run-fm-0123", **request})
    assert request["AlgorithmSpecification"] == {
        "TrainingImage": IMAGE,
        "TrainingInputMode": "File",
    }
    assert request["RoleArn"] == resources.role
    assert request["HyperParameters"] == fm()
    (channel,) = request["InputDataConfig"]
    source = channel.pop("DataSource")
    assert channel == {
        "ChannelName": "train",
        "ContentType": "application/x-recordio-protobuf",
        "InputMode": "File",
        "CompressionType": "None",
        "RecordWrapperType": "None",
    }
    assert source == {
        "S3DataSource": {
            "S3DataType": "S3Prefix",
            "S3Uri": "s3://bucket/fmknn/run/fm/train/",
            "S3DataDistributionType": (
                "ShardedByS3Key" if instance_count > 1 else "FullyReplicated"
            ),
        }
    }
    output, machine = request["OutputDataConfig"], request["ResourceConfig"]
    assert output.pop("KmsKeyId", None) == resources.kms_key
    assert machine.pop("VolumeKmsKeyId", None) == resources.kms_key
    assert output == {"S3OutputPath": "s3://bucket/fmknn/run/fm/output/"}, "no CompressionType"
    assert machine == {
        "InstanceType": resources.instance_type,
        "InstanceCount": instance_count,
        "VolumeSizeInGB": resources.volume_size_gb,
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": resources.max_runtime}
    assert request.get("VpcConfig") == resources.vpc_config
    assert {tag["Key"]: tag["Value"] for tag in request["Tags"]} == resources.tags


@EVERY_RESOURCES
def test_knn_training_requests(resources):
    settings = knn_hyperparameters(dim=5, k=3, n_items=10)
    request = training(resources, 1, settings)
    require_valid("CreateTrainingJob", {"TrainingJobName": "fmknn-run-knn-0123", **request})
    assert request["HyperParameters"] == settings


@EVERY_RESOURCES
def test_model_requests(resources):
    uri = "s3://bucket/run/output/job/output/model.tar.gz"
    request = model_request(resources, image=IMAGE, artifact_uri=uri)
    require_valid("CreateModel", {"ModelName": "fmknn-run-model-0123", **request})
    assert request["ExecutionRoleArn"] == resources.role
    assert request["PrimaryContainer"] == {"Image": IMAGE, "ModelDataUrl": uri}
    assert request.get("VpcConfig") == resources.vpc_config
    assert {tag["Key"]: tag["Value"] for tag in request["Tags"]} == resources.tags


@EVERY_RESOURCES
@pytest.mark.parametrize("instance_count", [1, 4])
@pytest.mark.parametrize("max_payload_mb", [1, 100])
def test_transform_requests(resources, instance_count, max_payload_mb):
    request = transform(resources, instance_count, max_payload_mb)
    require_valid("CreateTransformJob", {"TransformJobName": "fmknn-run-users-0123", **request})
    assert request["ModelName"] == "fmknn-run-model-0123"
    assert request["BatchStrategy"] == "MultiRecord"
    assert request["MaxPayloadInMB"] == max_payload_mb
    assert request["TransformInput"] == {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/in/"}},
        "ContentType": "application/x-recordio-protobuf",
        "SplitType": "RecordIO",
        "CompressionType": "None",
    }
    output, machine = request["TransformOutput"], request["TransformResources"]
    assert output.pop("KmsKeyId", None) == resources.kms_key
    assert machine.pop("VolumeKmsKeyId", None) == resources.kms_key
    assert output == {
        "S3OutputPath": "s3://bucket/out/",
        "Accept": "application/jsonlines; verbose=true",
        "AssembleWith": "Line",
    }
    assert machine == {"InstanceType": resources.instance_type, "InstanceCount": instance_count}
    assert {tag["Key"]: tag["Value"] for tag in request["Tags"]} == resources.tags


def test_a_request_is_nobody_elses():
    settings, vpc = {"k": "3"}, dict(VPC)
    resources = dataclasses.replace(RESOURCES[2], vpc_config=vpc)
    request = training(resources, 1, settings)
    request["HyperParameters"]["k"] = "4"
    request["VpcConfig"].clear()
    request["Tags"].clear()
    assert settings == {"k": "3"} and vpc == VPC and resources.tags == {"t": ""}


# --- role, bucket, instance type, run id --------------------------------------------------------


@pytest.mark.parametrize(
    "role",
    [
        ROLE,
        "arn:aws:iam::123456789012:role/MyRole",
        "arn:aws-us-gov:iam::123456789012:role/a/b/c+=,.@-_d",
        "arn:aws-cn:iam::000000000000:role/x",
    ],
)
def test_roles(role):
    assert require_role(role) == role


@pytest.mark.parametrize(
    "role",
    [
        "MyRole",
        "service-role/MyRole",
        "arn:aws:iam::123456789012:user/Me",
        "arn:aws:iam::12345678901:role/MyRole",
        "arn:aws:sts::123456789012:assumed-role/MyRole/me",
        f" {ROLE}",
        f"{ROLE}\n",
        f"{ROLE} ",
        "",
        None,
        7,
        ROLE.encode(),
    ],
)
def test_what_is_no_role_is_refused(role):
    with refused(ValueError, "role", "arn:aws:iam::123456789012:role/", repr(role)):
        require_role(role)
    with refused(ValueError, "role"):
        SageMakerBackend(role, "bucket")


def test_digits_of_other_scripts_are_no_account():
    with refused(ValueError, "role"):
        require_role(f"arn:aws:iam::{'٣' * 12}:role/MyRole")


def test_buckets():
    for bucket in ("abc", "my-bucket.of.2024", "0" * 63):
        assert require_bucket(bucket) == bucket
    for wrong in ("ab", "a" * 64, "My-bucket", "-ab", "ab-", ".ab", "a_b", "s3://abc", "abc/x"):
        with refused(ValueError, "bucket", "s3://", repr(wrong)):
            require_bucket(wrong)
    for wrong in ("abc\n", "", None, 5, b"abc"):
        with refused(ValueError, "bucket", repr(wrong)):
            require_bucket(wrong)


@pytest.mark.parametrize("bucket", ["a..b", "192.168.0.1"])
def test_names_that_s3_has_no_bucket_under(bucket):
    with refused(ValueError, "bucket"):
        require_bucket(bucket)


def test_instance_types():
    model = service()
    for operation, part in (
        ("CreateTrainingJob", "ResourceConfig"),
        ("CreateTransformJob", "TransformResources"),
    ):
        shape = model.operation_model(operation).input_shape.members[part]
        for instance_type in shape.members["InstanceType"].enum:
            assert require_instance_type(instance_type) == instance_type
    for wrong in ("m5.large", "ml.m5", "ml.m5.", "ML.m5.large", "ml.m5.large\n", "local", None, 3):
        with refused(ValueError, "instance_type", "ml.m5.large", repr(wrong)):
            require_instance_type(wrong)


@given(run_id=st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9\-]{0,40}", fullmatch=True))
@settings(max_examples=60)
def test_a_run_id_makes_names_that_sagemaker_takes(run_id):
    if len(run_id) > 32 or run_id.endswith("-"):
        with refused(ValueError, "run_id", repr(run_id)):
            require_run_id(run_id)
        return
    assert require_run_id(run_id) == run_id
    name = SageMakerBackend(ROLE, "bucket", run_id=run_id).run.job_name(
        f"model-{fingerprint(run_id)}"
    )
    assert run_id in name
    shape = service().operation_model("CreateTransformJob").input_shape
    for member in ("TransformJobName", "ModelName"):
        bounds = shape.members[member].metadata
        # where a job's earlier tries failed, its name goes on with up to three more characters
        assert len(name) + 3 <= bounds["max"]
        assert re.fullmatch(bounds["pattern"], f"{name}-99")


@pytest.mark.parametrize(
    "run_id", ["-a", "a-", "a_b", "a b", "a.b", "a/b", "ä", "a\n", "٣", "", "a" * 33, None, 7, b"a"]
)
def test_what_is_no_run_id_is_refused(run_id):
    with refused(ValueError, "run_id", repr(run_id)):
        require_run_id(run_id)


def test_a_long_run_id_is_refused_at_once():
    with refused(ValueError, "run_id"):  # no pattern is tried again and again on it
        require_run_id("a" * 100_000 + "!")


# --- fingerprints -----------------------------------------------------------------------------


def test_a_fingerprint_is_of_values_and_not_of_where_they_lie():
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    frozen = a.copy()
    frozen.setflags(write=False)
    same = {
        fingerprint(x, {"k": 5, "m": "x"}, 7)
        for x in (a, frozen, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2])
    }
    assert len(same) == 1
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    (name,) = same
    assert re.fullmatch("[a-z0-9]{12}", name), "part of the names of jobs"


def test_a_fingerprint_is_the_same_in_another_process():
    import subprocess
    import sys

    code = (
        "import numpy as np; from fmknn.backends.sagemaker.run import fingerprint as f; "
        "print(f(np.arange(3), {'k': '5', 'a': '1'}, 'x', None))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert told == fingerprint(np.arange(3), {"k": "5", "a": "1"}, "x", None)


def test_other_input_has_another_fingerprint():
    a = np.arange(6, dtype=np.float32)
    inputs = [
        (a,),
        (a.reshape(2, 3),),
        (a.reshape(3, 2),),
        (a.astype(np.float64),),
        (a.view(np.int32),),
        (a.view(np.uint32),),
        (a.astype(">f4"),),
        (np.nextafter(a, np.float32(9)),),
        (a[:3], a[3:]),
        (a[:2], a[2:]),
        (a, a),
        (a, None),
        (np.zeros((0, 3)),),
        (np.zeros((3, 0)),),
        (np.zeros(0),),
        (),
        ("ab",),
        ("a", "b"),
        ("b", "a"),
        ("a\0b",),
        ({"k": 5},),
        ({"k": "5"},),
        ({"k": 6},),
        ({"l": 5},),
        ({"k": 5}, {}),
        (5,),
        ("5",),
        (None,),
    ]
    assert len({fingerprint(*parts) for parts in inputs}) == len(inputs)


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_parts_do_not_run_into_each_other(left, right):
    arrays = [[np.frombuffer(part, np.uint8) for part in side] for side in (left, right)]
    assert (fingerprint(*arrays[0]) == fingerprint(*arrays[1])) == (left == right)


# --- the backend itself -------------------------------------------------------------------------


def backend(**settings):
    return SageMakerBackend(ROLE, "bucket", **settings)


def test_a_backend_is_made_without_a_word_to_aws():
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked for")

    clients = dict.fromkeys(("s3", "sagemaker", "logs"), Untouchable())
    made = backend(clients=clients, session=Untouchable())
    assert made.run_id == made.run.run_id
    assert (
        repr(made) == f"SageMakerBackend(bucket='bucket', run_id={made.run_id!r}, search='local')"
    )


def test_run_ids_are_made_anew_and_valid():
    made = {backend().run_id for _ in range(20)}
    assert len(made) == 20
    assert all(require_run_id(run_id) == run_id for run_id in made)


def test_everything_lies_below_the_prefix_and_the_run_and_bears_its_tag():
    made = backend(run_id="r1", prefix="/a/b.c/", tags={"team": "x"})
    assert made.run.store.uri("users/in/") == "s3://bucket/a/b.c/r1/users/in/"
    assert backend(run_id="r1").run.store.uri("x") == "s3://bucket/fmknn/r1/x"
    tags = {tag["Key"]: tag["Value"] for tag in made.run.resources.tag_list()}
    assert tags["team"] == "x"
    assert "r1" in [value for key, value in tags.items() if key != "team"]


def test_images_are_the_tables_or_those_that_were_given():
    given = {"knn": "1.dkr.ecr.mars-1.amazonaws.com/knn:1"}
    made = backend(region="eu-west-1", image_uri=given)
    assert made.run.image("knn") == given["knn"]
    assert made.run.image("factorization-machines") == image_uri(
        "factorization-machines", "eu-west-1"
    )
    with refused(ValueError, "mars-1", "image_uri="):
        backend(region="mars-1", image_uri=given).run.image("factorization-machines")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"search": "remote"}, ["search", "local", "sagemaker", "remote"]),
        ({"index_type": "faiss.IVFPQ"}, ["IVFPQ", "L2"]),
        ({"index_type": "flat"}, ["index_type", "'flat'"]),
        ({"index_type": "faiss.Flat", "nlists": 3}, ["nlists", "faiss.Flat"]),
        ({"nlists": 0}, ["nlists", 0]),
        ({"deadline": 0}, ["deadline", 0]),
        ({"deadline": -1.5}, ["deadline", -1.5]),
        ({"deadline": math.nan}, ["deadline", "nan"]),
        ({"deadline": math.inf}, ["deadline", "inf"]),
        ({"deadline": "60"}, ["deadline", "'60'"]),
        ({"deadline": True}, ["deadline", True]),
        ({"poll_seconds": 0}, ["poll_seconds", 0]),
        ({"max_payload_mb": 0}, ["max_payload_mb", 0]),
        ({"max_payload_mb": 101}, ["max_payload_mb", 100, 101]),
        ({"max_payload_mb": 1.5}, ["max_payload_mb", 1.5]),
        ({"instance_count": 0}, ["instance_count", 0]),
        ({"instance_count": True}, ["instance_count", True]),
        ({"instance_type": "m5.large"}, ["instance_type", "m5.large"]),
        ({"volume_size_gb": 0}, ["volume_size_gb", 0]),
        ({"max_runtime": 0}, ["max_runtime", 0]),
        ({"max_runtime": 0.5}, ["max_runtime", 0.5]),
        ({"max_k": 0}, ["max_k", 0]),
        ({"max_bytes": 0}, ["max_bytes", 0]),
        ({"image_uri": {"xgboost": "…"}}, ["image_uri", "xgboost", "knn"]),
        ({"clients": {"s4": None}}, ["s4", "s3", "sagemaker", "logs"]),
        ({"run_id": "a_b"}, ["run_id", "a_b"]),
        ({"run_id": "x" * 33}, ["run_id"]),
        ({"prefix": ""}, ["prefix"]),
        ({"prefix": "a//b"}, ["prefix", "a//b"]),
        ({"prefix": "a b"}, ["prefix", "a b"]),
        ({"prefix": "s3://bucket/a"}, ["prefix", "s3:"]),
        ({"prefix": None}, ["prefix", None]),
        ({"tags": {"a": 1}}, ["tag", "a", 1]),
        ({"tags": {"": "x"}}, ["tag"]),
        ({"tags": {str(i): "" for i in range(10)}}, ["tags", 9, 10]),
    ],
)
def test_settings_that_sagemaker_would_refuse_are_refused_here(changed, words):
    with refused(ValueError, *words):
        backend(**changed)


ALSO_REFUSED = [
    pytest.param({"run_id": ""}, "run_id", id="empty run_id"),
    pytest.param({"max_runtime": 28 * 86400 + 1}, "max_runtime", id="SageMaker ends at 28 days"),
    pytest.param({"vpc_config": {"Subnets": ["subnet-1"]}}, "vpc_config", id="half a VpcConfig"),
    pytest.param({"vpc_config": {"subnets": ["s"]}}, "vpc_config", id="unknown VpcConfig"),
    pytest.param({"poll_seconds": None}, "poll_seconds", id="poll_seconds is no option"),
    pytest.param({"kms_key": 5}, "kms_key", id="kms_key that is no text"),
    pytest.param({"tags": {"aws:x": "1"}}, "aws:", id="tags of AWS's own"),
    pytest.param({"tags": {"k" * 129: "1"}}, "tag", id="tag key longer than 128"),
    pytest.param({"tags": {"k": "v" * 257}}, "tag", id="tag value longer than 256"),
    pytest.param({"tags": {"k": "1*2"}}, "tag", id="tag value with a star"),
    pytest.param({"tags": {"fmknn:run": "x"}}, "fmknn:run", id="our own tag"),
    pytest.param({"prefix": "a" * 1100}, "prefix", id="keys of S3 end at 1024 bytes"),
]


@pytest.mark.parametrize(("changed", "word"), ALSO_REFUSED)
def test_settings_of_the_wrong_size_or_kind_are_refused(changed, word):
    with refused(ValueError, word):
        backend(**changed)


@given(
    volume=st.integers(1, 1000),
    count=st.integers(1, 20),
    runtime=st.integers(1, 28 * 86400),
    tags=st.dictionaries(
        st.from_regex(r"[a-zA-Z0-9_.:/=+\-@]{1,40}", fullmatch=True).filter(
            lambda key: not key.lower().startswith(("aws:", "fmknn:"))
        ),
        st.from_regex(r"[a-zA-Z0-9 _.:/=+\-@]{0,40}", fullmatch=True),
        max_size=9,
    ),
)
@settings(max_examples=15)
def test_what_a_backend_takes_makes_valid_requests(volume, count, runtime, tags):
    made = backend(
        volume_size_gb=volume, instance_count=count, max_runtime=runtime, tags=tags, vpc_config=VPC
    )
    resources = made.run.resources
    assert isinstance(resources.tags, Mapping)
    require_valid("CreateTrainingJob", {"TrainingJobName": "n", **training(resources, count)})
    require_valid("CreateTransformJob", {"TransformJobName": "n", **transform(resources, count)})
    require_valid(
        "CreateModel",
        {
            "ModelName": "n",
            **model_request(resources, image=IMAGE, artifact_uri="s3://bucket/model.tar.gz"),
        },
    )
