"""A SageMaker that runs here: real boto3, real HTTP, real bytes, no AWS.

    from sagemaker_emulator import Emulator

    with Emulator() as emulator:
        s3, sagemaker = emulator.clients["s3"], emulator.clients["sagemaker"]
        s3.put_object(Bucket=emulator.bucket, Key="job/train/part-0.pbr", Body=recordio)
        sagemaker.create_training_job(TrainingJobName="fm-1", RoleArn=emulator.role, ...)
        sagemaker.describe_training_job(TrainingJobName="fm-1")["TrainingJobStatus"]

S3 and CloudWatch Logs are moto's, behind a proxy; SageMaker is this package: training jobs of
the factorization machines and k-NN containers (told apart by the image's name), models, batch
transform. Each job is played by a thread that reads its input from S3 and writes its results
there, in the containers' formats, by code of its own. Whatever AWS has not made public is imitated
and said so where it is: the wording of a regressor's log, the graph in ``symbol.json``, several
hosts (one after the other here, asynchronous there).

=======================  ===========================================================================
``clients``              boto3 clients ``"s3"``, ``"sagemaker"``, ``"logs"``; ``endpoints`` likewise
``client(name, …)``      another client with a configuration of its own
``env()``                environment variables that lead boto3 here
``bucket``, ``role``     a bucket that exists, the ARN of a role
``s3``                   an S3 client past the proxy: never hit by a fault
``initial``              start values ``{"w0": …, "w": (n,), "V": (n, k)}`` for the next trainings;
                         None: drawn as the ``*_init_*`` hyperparameters say, from ``seed``
``requests``, ``count``  every SageMaker request so far; how many of one operation
``jobs()``, ``models()`` what is left behind
``faults``               switches for what goes wrong: :class:`Faults` lists them
``speed``                seconds per status of a job
=======================  ===========================================================================

One emulator at a time and process: moto's state is the process's, and starting empties it.
Nothing here imports the package under test.
"""

from .emulator import Emulator
from .faults import Faults

__all__ = ["Emulator", "Faults"]
