"""Every deployment can be loaded, its schedule parses, and its parameters fit the flow's form."""

import importlib

import jsonschema
import pytest
import yaml
from cronsim import CronSim
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from byok.clock import utcnow
from byok.resources import shipped

DEPLOYMENTS = yaml.safe_load(shipped("deployments", "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=[one["name"] for one in DEPLOYMENTS])
class TestDeployment:
    def test_the_entrypoint_is_dotted_and_imports_a_flow(self, deployment):
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert ":" not in deployment["entrypoint"] and deployment["pull"] == []
        assert isinstance(getattr(importlib.import_module(module), name), Flow)

    def test_parameters_fit_the_form(self, deployment):
        module, _, name = deployment["entrypoint"].rpartition(".")
        schema = parameter_schema(getattr(importlib.import_module(module), name)).model_dump()
        if deployment["parameters"]:
            jsonschema.validate(deployment["parameters"], schema)

    def test_schedules_parse(self, deployment):
        for schedule in deployment["schedules"]:
            assert next(CronSim(schedule["cron"], utcnow())) > utcnow()


def test_runs_and_rotations_can_be_scheduled_and_all_else_is_started_by_a_person():
    assert {one["name"]: bool(one["schedules"]) for one in DEPLOYMENTS} == {
        "ad-hoc": False,
        "nightly": True,
        "register-model": False,
        "rotate-key": False,
        "rotate-transit": True,
        "probe-models": True,
        "resume": False,
        "scaled": False,
        "resume-scaled": False,
        "low-credit": False,
    }


def test_no_schedule_is_on_before_somebody_switches_it_on():
    assert not [one["name"] for one in DEPLOYMENTS for schedule in one["schedules"] if schedule["active"]]


def test_the_form_of_a_scaled_run_is_that_of_any_other_and_the_address_of_the_cluster():
    from flows.evaluation import evaluate, resume
    from flows.scaled import evaluate_scaled, resume_scaled

    for plain, scaled in ((evaluate, evaluate_scaled), (resume, resume_scaled)):
        form, wider = (parameter_schema(flow).model_dump() for flow in (plain, scaled))
        address = wider["properties"].pop("scheduler")
        assert wider == form and address["default"] is None and "BYOK_DASK_SCHEDULER" in address["description"]


def test_every_field_of_the_form_explains_itself():
    from flows.evaluation import evaluate

    schema = parameter_schema(evaluate).model_dump()
    (form,) = schema["definitions"].values()
    assert [name for name, field in form["properties"].items() if not field.get("description") or not field.get("title")] == []
    positions = [field["position"] for field in form["properties"].values()]
    assert positions == list(range(len(positions)))


def test_no_field_of_the_form_asks_for_a_key():
    from byok.runs import EvaluationRequest

    assert not [name for name in EvaluationRequest.model_fields if "key" in name or "secret" in name or "token" in name.split("_")]
