"""The files for Docker, Compose and Kubernetes say what the server can do, and give it time to leave."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunedeck.cli.app import loaded

FOLDER = Path(__file__).parents[2] / "examples" / "deploy"


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["tunedeck"]


def kubernetes(kind: str) -> dict[str, Any]:
    found = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return next(one for one in found if one["kind"] == kind)


def container() -> dict[str, Any]:
    return kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of `tunedeck serve` as it reads them from its arguments, defaults included."""
    context = loaded("serve").make_context("serve", list(arguments))
    return dict(context.params)


def image_arguments() -> list[str]:
    """What the Dockerfile gives the server where Compose or Kubernetes give nothing else."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    command = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert command is not None
    arguments: list[str] = json.loads(command[1])
    return arguments


def seconds(duration: str) -> int:
    """Of a duration in Compose, such as 60s or 5m."""
    number, unit = duration[:-1], duration[-1]
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.mark.parametrize("arguments", [compose()["command"], container()["args"]], ids=["compose", "kubernetes"])
def test_the_server_reads_every_argument_and_adapters_and_keys_are_where_they_are_mounted(arguments: list[str]) -> None:
    given = parsed(arguments)
    assert given["host"] == "0.0.0.0"
    mounts = [one["mountPath"] for one in container()["volumeMounts"]]
    mounts += [one.split(":")[1] for one in compose()["volumes"]] + [
        f"/run/secrets/{one}" for one in compose()["secrets"]
    ]
    for option in ("adapters", "api_key_file"):
        assert any(str(given[option]).startswith(mount) for mount in mounts)


def test_the_image_starts_the_server_itself_and_not_as_root() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["tunedeck", "serve"]' in text
    assert parsed(image_arguments())["host"] == "0.0.0.0"
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((FOLDER.parents[1] / one).exists() for one in copied.split())


def test_a_stopped_container_has_more_time_than_the_server_takes_to_drain() -> None:
    leaving_s = 5  # connections that are still open after the drain
    assert seconds(compose()["stop_grace_period"]) > parsed(compose()["command"])["drain_timeout"] + leaving_s
    waits = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    grace_s = kubernetes("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > waits + parsed(container()["args"])["drain_timeout"] + leaving_s


def test_probes_ask_what_is_open_to_them() -> None:
    for probe in ("livenessProbe", "startupProbe"):
        assert container()[probe]["httpGet"]["path"] == "/health"
    program = container()["readinessProbe"]["exec"]["command"]
    assert program[:2] == ["python", "-c"]
    compile(program[2], "probe", "exec")
    assert "/ready" in program[2]
    check = compose()["healthcheck"]["test"]
    compile(check[3], "check", "exec")
    assert "/health" in check[3]


def test_the_service_the_budget_and_the_pods_speak_of_one_another() -> None:
    labels = kubernetes("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert kubernetes("Service")["spec"]["selector"] == labels
    assert kubernetes("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    claims = [
        one.get("persistentVolumeClaim") for one in kubernetes("Deployment")["spec"]["template"]["spec"]["volumes"]
    ]
    assert kubernetes("PersistentVolumeClaim")["metadata"]["name"] in [one["claimName"] for one in claims if one]


def test_base_and_task_are_given_and_not_left_to_the_adapters() -> None:
    for arguments in (image_arguments(), compose()["command"], container()["args"]):
        given = parsed(arguments)
        assert (given["model"], given["task"]) == ("bundled:all-minilm-l6-v2", "classify")


def test_pods_have_a_group_and_a_network_policy_of_their_own() -> None:
    assert kubernetes("Deployment")["spec"]["template"]["spec"]["securityContext"]["runAsGroup"] > 0
    policy = kubernetes("NetworkPolicy")["spec"]
    labels = kubernetes("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["ingress"][0]["ports"] == [{"port": container()["ports"][0]["name"]}]
    assert all("from" in one for one in policy["ingress"])
