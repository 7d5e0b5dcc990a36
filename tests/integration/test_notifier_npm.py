"""The verifiers that receivers on Node.js use accept what we send: npm `standardwebhooks` and `svix`."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from aiohttp import web
from pydantic import SecretStr

from infra.settings import KafkaSettings
from tests.notifier_world import SECRET, notifying, publish_completions, receiving, settings_for
from tests.unit.test_notifier_signing import PRIVATE_KEY
from tests.waiting import eventually

# Fixed, so that a verifier's new release does not decide about ours.
_VERSIONS = {"standardwebhooks": "1.1.1", "svix": "2.5.0"}
_REQUIRED = "VOXBUS_TEST_REQUIRE_NPM"
_INSTALL_S = 90

# Reads one delivery from standard input, and says for each package whether it took it, and took it when forged.
_VERIFY = """
const { secret, headers, body } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const accepts = (name, text) => {
  try { new (require(name).Webhook)(secret).verify(text, headers); return true; } catch (error) { return false; }
};
const names = process.argv.slice(2);
console.log(JSON.stringify(Object.fromEntries(names.map((n) => [n, [accepts(n, body), accepts(n, body + " ")]]))));
"""


def _cannot(reason: str) -> NoReturn:
    """Skip, or fail where somebody relies on these tests."""
    if os.environ.get(_REQUIRED) == "1":
        pytest.fail(f"{_REQUIRED} is 1, and {reason}")
    pytest.skip(f"{reason} ({_REQUIRED}=1 makes this a failure)")


@pytest.fixture(scope="module")
def verifiers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not shutil.which("node") or not shutil.which("npm"):
        _cannot("node or npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    packages = [f"{name}@{version}" for name, version in _VERSIONS.items()]
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", *packages]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        _cannot(f"npm did not install the verifiers in {_INSTALL_S} s")
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        _cannot(f"npm cannot install the verifiers: {words[0]}")
    (folder / "verify.cjs").write_text(_VERIFY)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def _verdicts(folder: Path, delivery: dict[str, Any]) -> dict[str, list[bool]]:
    command = ["node", "verify.cjs", *_VERSIONS]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=folder,
        input=json.dumps({"secret": SECRET, **delivery}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    verdicts: dict[str, list[bool]] = json.loads(done.stdout)
    return verdicts


@pytest.mark.parametrize("secrets", [SECRET, f"{PRIVATE_KEY} {SECRET}"])
async def test_the_npm_verifiers_accept(verifiers: Path, topics_ready: KafkaSettings, secrets: str) -> None:
    deliveries: list[dict[str, Any]] = []

    async def keep(request: web.Request, _before: int) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        deliveries.append({"headers": headers, "body": (await request.read()).decode()})
        return web.Response(status=204)

    async with receiving(keep) as receiver, notifying(settings_for(topics_ready, signing_secret=SecretStr(secrets))):
        await publish_completions(topics_ready, ["r-1"], receiver.url)
        await eventually(lambda: bool(deliveries))
    # Taken as it came, refused when one byte was added.
    assert await _verdicts(verifiers, deliveries[0]) == {name: [True, False] for name in _VERSIONS}
