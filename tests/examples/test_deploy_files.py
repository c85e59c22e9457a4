"""The files for Docker, Compose and Kubernetes say what the server can do, and give it time to leave."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunedeck.cli.serve import serve

FOLDER = Path(__file__).parents[2] / "examples" / "deploy"
OPTIONS = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}


def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["tunedeck"]


def kubernetes(kind: str) -> dict[str, Any]:
    found = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return next(one for one in found if one["kind"] == kind)


def container() -> dict[str, Any]:
    return kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]


def drain_s(arguments: list[str]) -> int:
    return next(int(one.partition("=")[2]) for one in arguments if one.startswith("--drain-timeout="))


@pytest.mark.parametrize("arguments", [compose()["command"], container()["args"]], ids=["compose", "kubernetes"])
def test_every_option_exists_and_adapters_and_keys_are_where_they_are_mounted(arguments: list[str]) -> None:
    given = dict(one.split("=") for one in arguments)
    assert set(given) <= OPTIONS
    assert given["--host"] == "0.0.0.0"
    mounts = [one["mountPath"] for one in container()["volumeMounts"]]
    mounts += [one.split(":")[1] for one in compose()["volumes"]] + [
        f"/run/secrets/{one}" for one in compose()["secrets"]
    ]
    for option in ("--adapters", "--api-key-file"):
        assert any(given[option].startswith(mount) for mount in mounts)


def test_the_image_starts_the_server_itself_and_not_as_root() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["tunedeck", "serve"]' in text
    assert set(re.findall(r'"(--[a-z-]+)"', text)) <= OPTIONS
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((FOLDER.parents[1] / one).exists() for one in copied.split())


def test_a_stopped_container_has_more_time_than_the_server_takes_to_drain() -> None:
    leaving_s = 5  # connections that are still open after the drain
    assert int(compose()["stop_grace_period"].rstrip("s")) > drain_s(compose()["command"]) + leaving_s
    waits = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    grace_s = kubernetes("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > waits + drain_s(container()["args"]) + leaving_s


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


def test_base_and_task_are_said_and_not_left_to_the_adapters() -> None:
    image = re.search(r"^CMD (\[.*\])$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert image is not None
    words = json.loads(image[1])
    given = [dict(zip(words[::2], words[1::2], strict=True))]
    given += [dict(one.split("=") for one in arguments) for arguments in (compose()["command"], container()["args"])]
    assert [(one["--model"], one["--task"]) for one in given] == [("bundled:all-minilm-l6-v2", "classify")] * 3


def test_pods_have_a_group_and_a_network_policy_of_their_own() -> None:
    assert kubernetes("Deployment")["spec"]["template"]["spec"]["securityContext"]["runAsGroup"] > 0
    policy = kubernetes("NetworkPolicy")["spec"]
    labels = kubernetes("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["ingress"][0]["ports"] == [{"port": container()["ports"][0]["name"]}]
    assert all("from" in one for one in policy["ingress"])
