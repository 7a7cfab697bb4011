"""The definition for Step Functions: linted, looked through, and executed by an interpreter."""

from __future__ import annotations

import json
import time

import asl
import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from sagemaker_cli import argv, get, lines, put, ratings_csv
from sagemaker_emulator import Emulator
from sagemaker_rig import keys, require_nothing_running
from statelint.linter import Linter

import fmknn
from fmknn.backends.sagemaker.run import require_run_id
from fmknn.cli import main

ROLE = "arn:aws:iam::123456789012:role/service-role/Train"
COMMAND = ["fmknn", "sagemaker", "s3://a-bucket/r.csv", "--role", ROLE, "--bucket", "a-bucket"]
VPC = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}


def definition_of(command=COMMAND, role=ROLE, job_queue="queue", timeout_seconds=3600, **settings):
    backend = fmknn.SageMakerBackend(role, "a-bucket", **settings)
    return backend.state_machine(
        command=command,
        job_queue=job_queue,
        job_definition="fmknn:1",
        timeout_seconds=timeout_seconds,
    )


# --- the definition itself --------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"vpc_config": VPC, "kms_key": "key", "tags": {"a": "b"}}]
)
def test_the_linter_has_nothing_to_say(settings):
    assert Linter.validate(json.loads(json.dumps(definition_of(**settings)))) == []


@pytest.mark.parametrize(
    ("state", "name", "value"),
    [
        ("Train", "Next", "Nowhere"),
        ("ReadNext", "ResultPath", "next"),
        ("Begin", "Parameters", {"run_id.$": "States.Hash($$.Execution.Id"}),
        ("Failed", "CausePath", "error"),
        ("Step", "Retry", [{"ErrorEquals": []}]),
    ],
)
def test_the_linter_sees_what_is_wrong(state, name, value):
    definition = definition_of()
    definition["States"][state][name] = value
    assert Linter.validate(definition) != []


def test_it_is_the_same_for_every_run():
    assert json.dumps(definition_of(run_id="a")) == json.dumps(definition_of(run_id="b"))


def test_every_state_is_reached_and_every_task_retries_and_catches():
    states = definition_of()["States"]
    reached, waiting = set(), ["Begin"]
    while waiting:
        state = states[name := waiting.pop()]
        reached.add(name)
        rules = [*state.get("Choices", []), *state.get("Catch", []), state]
        waiting += [rule["Next"] for rule in rules if rule.get("Next", name) not in reached]
    assert reached == states.keys()
    for name, state in states.items():
        if state["Type"] == "Task":
            assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name
            retried = {error for rule in state["Retry"] for error in rule["ErrorEquals"]}
            assert not retried & {"States.ALL", "States.TaskFailed"}, name  # final, and costly


@pytest.mark.parametrize(("settings", "vpc"), [({}, False), ({"vpc_config": VPC}, True)])
def test_fields_that_the_backend_does_not_have_are_not_referred_to(settings, vpc):
    states = definition_of(**settings)["States"]
    assert ("VpcConfig.$" in states["Train"]["Parameters"]) is vpc
    assert "VpcConfig.$" not in states["Transform"]["Parameters"]  # the model's own


def test_the_partition_is_that_of_the_role():
    definition = definition_of(role="arn:aws-cn:iam::123456789012:role/Train")
    for state in definition["States"].values():
        assert state.get("Resource", "arn:aws-cn:states:::").startswith("arn:aws-cn:states:::")


@pytest.mark.parametrize("name", ["run", "c0ffee00-0000-4000-8000-000000000000", "x" * 80])
def test_any_execution_has_a_run_id(name):
    context = {"Execution": {"Id": f"arn:aws:states:::execution:m:{name}", "Name": name}}
    parameters = definition_of()["States"]["Begin"]["Parameters"]
    assert len(require_run_id(asl.filled(parameters, {}, context)["run_id"])) == 32


def command_in(definition):
    states = definition["States"]
    data = asl.filled(states["Begin"]["Parameters"], {}, {"Execution": {"Id": "x"}})
    parameters = asl.filled(states["Step"]["Parameters"], {**data, "run_id": "abc"}, {})
    return parameters["ContainerOverrides"]["Command"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))))
def test_a_command_arrives_word_by_word(words):
    added = ["--run-id", "abc", "--next", "s3://a-bucket/one/two/abc/next.json"]
    definition = definition_of(["fmknn", *(f"x{word}" for word in words)], prefix="one/two")
    assert command_in(definition) == ["fmknn", *(f"x{word}" for word in words), *added]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"command": "fmknn sagemaker"}, TypeError, ["command", "list"]),
        ({"command": ["fmknn", 5]}, TypeError, ["command", "5"]),
        ({"command": []}, ValueError, ["command", "empty"]),
        ({"command": [*COMMAND, "--run-id", "x"]}, ValueError, ["--run-id"]),
        ({"command": [*COMMAND, "--next=x"]}, ValueError, ["--next"]),
        ({"command": [*COMMAND, "--subnets", "a"]}, ValueError, ["--subnets", "vpc_config"]),
        ({"job_queue": ""}, ValueError, ["job_queue"]),
        ({"timeout_seconds": 0}, ValueError, ["timeout_seconds"]),
        ({"timeout_seconds": 10**8}, ValueError, ["timeout_seconds", "99999999"]),
    ],
)
def test_what_can_not_work_is_refused(settings, error, words):
    with refused(error, *words):
        definition_of(**settings)


# --- the interpreter, by the examples of AWS's developer guide ---------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("States.Hash($.data, 'SHA-1')", "aaff4a450a104cd177d28d18d74485e8cae074b7"),
        ("States.Format('Hello, my name is {}.', $.name)", "Hello, my name is Arnav."),
        ("States.Format('{}{}', 'a')", None),
        ("States.Array($.number)", [123456]),
        ("States.StringToJson($.escaped)", {"foo": "bar"}),
        (r"States.Array('it\'s', States.Format('\{{}\}', $.name))", ["it's", "{Arnav}"]),
        ("States.Array('a'", None),
        ("States.Hash($.nothing, 'MD5')", None),
    ],
)
def test_intrinsic_functions(text, value):
    data = {"data": "input data", "name": "Arnav", "number": 123456, "escaped": '{"foo": "bar"}'}
    if value is None:
        with pytest.raises(asl.TaskError):
            asl.evaluated(text, data, {})
    else:
        assert asl.evaluated(text, data, {}) == value


# --- execution --------------------------------------------------------------------------------


def upper_first(name):
    return name[0].upper() + name[1:]


SUBMIT_JOB = ServiceModel(Loader().load_service_model("batch", "service-2")).operation_model(
    "SubmitJob"
)
ENDED = ("Completed", "Failed", "Stopped")


def batch_job(parameters):
    """Run the container's command in this process."""
    request = {  # Step Functions' PascalCase -> AWS Batch's own names
        "jobName": parameters["JobName"],
        "jobQueue": parameters["JobQueue"],
        "jobDefinition": parameters["JobDefinition"],
        "containerOverrides": {"command": parameters["ContainerOverrides"]["Command"]},
    }
    assert {upper_first(name) for name in request} == parameters.keys()
    report = ParamValidator().validate(request, SUBMIT_JOB.input_shape)
    assert not report.has_errors(), report.generate_report()
    program, *words = request["containerOverrides"]["command"]
    assert program == "fmknn"
    if code := main(words):
        raise asl.TaskError("States.TaskFailed", json.dumps({"Container": {"ExitCode": code}}))
    return {"Status": "SUCCEEDED"}


class Services:
    """The integrations that a definition names, against the emulator."""

    def __init__(self, emulator):
        self.s3, self.sagemaker = emulator.clients["s3"], emulator.clients["sagemaker"]
        self.job_runs = 0

    def tasks(self):
        return {
            "arn:aws:states:::batch:submitJob.sync": self.batch_job,
            "arn:aws:states:::aws-sdk:s3:getObject": self.get_object,
            "arn:aws:states:::aws-sdk:sagemaker:deleteModel": self.delete_model,
            "arn:aws:states:::sagemaker:createTrainingJob.sync": self.job("Training"),
            "arn:aws:states:::sagemaker:createTransformJob.sync": self.job("Transform"),
        }

    def batch_job(self, parameters):
        self.job_runs += 1
        return batch_job(parameters)

    def get_object(self, parameters):
        try:
            return {"Body": self.s3.get_object(**parameters)["Body"].read().decode()}
        except ClientError as error:
            raise asl.TaskError(
                f"S3.{error.response['Error']['Code']}Exception", str(error)
            ) from error

    def delete_model(self, parameters):
        self.sagemaker.delete_model(**parameters)
        return {}

    def job(self, family):
        create = getattr(self.sagemaker, f"create_{family.lower()}_job")
        describe = getattr(self.sagemaker, f"describe_{family.lower()}_job")
        name = f"{family}JobName"

        def run(parameters):
            try:
                create(**parameters)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                typed = {"ResourceInUse", "ResourceLimitExceeded", "ResourceNotFound"}
                known = f"{code}Exception" if code in typed else "AmazonSageMakerException"
                raise asl.TaskError(f"SageMaker.{known}", str(error)) from error
            while (job := describe(**{name: parameters[name]}))[f"{family}JobStatus"] not in ENDED:
                time.sleep(0.01)
            if job[f"{family}JobStatus"] != "Completed":
                raise asl.TaskError("States.TaskFailed", json.dumps(job, default=str))
            return json.loads(json.dumps(job, default=str))

        return run


@pytest.fixture(scope="module")
def server():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(server, monkeypatch):
    server.faults.clear()
    for name, value in server.env().items():
        monkeypatch.setenv(name, value)
    yield server
    server.faults.clear()
    require_nothing_running(server)


def executed(emulator, name, *more, **settings):
    """Execute the definition for a command line; return how it went, and what it wrote."""
    ratings = put(emulator, "ratings.csv", ratings_csv())
    to = f"s3://{emulator.bucket}/lists/{name}.jsonl"
    backend = fmknn.SageMakerBackend(emulator.role, emulator.bucket, **settings)
    definition = backend.state_machine(
        command=["fmknn", *argv(emulator, ratings, to, *more)],
        job_queue="queue",
        job_definition="fmknn",
    )
    assert Linter.validate(definition) == []
    return asl.execute(definition, Services(emulator).tasks(), name=name)


VPC_OPTIONS = ["--subnets", "subnet-1", "--security-groups", "sg-1"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("more", "settings", "jobs"),
    [
        ([], {}, ["Train"]),
        (["--search", "sagemaker", "-n", "5"], {}, ["Train", "Train", "Transform"]),
        (["--kms-key", "a-key", *VPC_OPTIONS], {"kms_key": "a-key", "vpc_config": VPC}, ["Train"]),
    ],
    ids=["local", "sagemaker", "vpc"],
)
def test_an_execution_writes_what_a_direct_run_writes(emulator, tmp_path, more, settings, jobs):
    name = f"same-{len(more)}"
    run = executed(emulator, name, *more, **settings)
    assert (run.status, run.error, run.cause) == ("SUCCEEDED", None, None)
    loop = [part for job in [*jobs, "Done"] for part in ("Step", "ReadNext", "Choose", job)]
    assert run.path == ["Begin", *loop]
    assert run.output["next"]["plan"] == {"action": "done", "run": run.output["run_id"]}

    ratings, to = tmp_path / "ratings.csv", tmp_path / "direct.jsonl"
    ratings.write_bytes(ratings_csv())
    assert main(argv(emulator, ratings, to, "--run-id", f"direct-{len(more)}", *more)) == 0
    written = get(emulator, f"lists/{name}.jsonl")
    assert len(lines(written)) == 40
    assert written == to.read_bytes()


@pytest.mark.server
def test_an_execution_that_cleans_up_leaves_its_plan_only(emulator):
    run = executed(emulator, "clean", "--search", "sagemaker", "--cleanup")
    assert run.status == "SUCCEEDED"
    run_id = run.output["run_id"]
    assert keys(emulator, f"fmknn/{run_id}/") == [f"fmknn/{run_id}/next.json"]


@pytest.mark.server
def test_a_failed_training_is_told(emulator):
    emulator.faults.failed = {"fm": "AlgorithmError: the moon was in the way"}
    run = executed(emulator, "failed-training")
    assert (run.status, run.path[-2:]) == ("FAILED", ["Train", "Failed"])
    assert run.error == "States.TaskFailed"
    assert "the moon was in the way" in run.cause


@pytest.mark.server
def test_a_failed_transform_is_told_and_leaves_no_model(emulator):
    emulator.faults.failed = {"transform": "AlgorithmError: no answer"}
    run = executed(emulator, "failed-transform", "--search", "sagemaker")
    assert (run.status, run.path[-3:]) == ("FAILED", ["Transform", "DeleteModel", "Failed"])
    assert "no answer" in run.cause
    assert emulator.models() == []


@pytest.mark.server
def test_a_failed_command_is_told(emulator, capsys):
    run = executed(emulator, "failed-command", "--value", "stars")
    assert (run.status, run.path) == ("FAILED", ["Begin", "Step", "Failed"])
    assert json.loads(run.cause) == {"Container": {"ExitCode": 1}}
    assert "no column 'stars'" in capsys.readouterr().err


@pytest.mark.server
def test_throttling_is_waited_out(emulator):
    emulator.faults.throttled = {"CreateTrainingJob": 6}  # boto3 makes three attempts of its own
    run = executed(emulator, "throttled")
    assert run.status == "SUCCEEDED"
    assert run.path.count("Train") == 3
    assert run.waits == [5, 10]


@pytest.mark.server
def test_throttling_without_end_is_told(emulator):
    emulator.faults.throttled = {"CreateTrainingJob": 1000}
    run = executed(emulator, "throttled-for-ever")
    assert (run.status, run.error) == ("FAILED", "SageMaker.AmazonSageMakerException")
    assert "ThrottlingException" in run.cause


@pytest.mark.server
def test_a_job_whose_creation_was_answered_by_an_error_is_found(emulator):
    services = Services(emulator)
    create, answers = services.sagemaker.create_training_job, iter(["lost"])

    def create_and_lose_the_answer(**request):
        create(**request)
        if next(answers, None):
            answer = {"Error": {"Code": "InternalFailure", "Message": "an error of AWS's own"}}
            raise ClientError(answer, "CreateTrainingJob")

    emulator.clients["sagemaker"].create_training_job = create_and_lose_the_answer
    try:
        run = executed(emulator, "lost-answer")
    finally:
        del emulator.clients["sagemaker"].create_training_job
    assert run.status == "SUCCEEDED"
    # created, tried again, found taken: the next step waits for that job itself
    assert run.path[4:] == ["Train", "Train", "Step", "ReadNext", "Choose", "Done"]
