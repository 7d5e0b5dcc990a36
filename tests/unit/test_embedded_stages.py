import pytest

from infra.embedded.files import DataDirectory
from infra.embedded.ports import PortBook
from infra.embedded.stages import StageOptions, installed_stages, stage_specs

ADDRESSES = {"VOXBUS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}


@pytest.fixture
def specs(tmp_path):
    directory, ports = DataDirectory.prepared(tmp_path), PortBook(tmp_path / "ports.json")

    def make(options=None, **user):
        options = options or StageOptions()
        stages = installed_stages(directory, ports, options, signing_secret="whsec_x")
        made = stage_specs(stages, directory, ports, addresses=ADDRESSES, options=options, user=user)
        return {spec.name: spec for spec in made}

    return make


def test_every_stage_of_the_pipeline_is_there_in_its_order(specs):
    assert [name for name in specs() if name != "gateway"] == ["dedup", "synth", "upload", "notify"]


def test_the_users_environment_wins_over_defaults_but_not_over_addresses(specs):
    made = specs(VOXBUS_NOTIFIER__SIGNING_SECRET="whsec_mine", VOXBUS_KAFKA__BOOTSTRAP_SERVERS="elsewhere:1")
    assert made["notify"].env["VOXBUS_NOTIFIER__SIGNING_SECRET"] == "whsec_mine"
    assert made["notify"].env["VOXBUS_KAFKA__BOOTSTRAP_SERVERS"] == "127.0.0.1:1"


def test_the_command_line_wins_over_the_environment(specs):
    made = specs(StageOptions(engine="tone", slots=3), VOXBUS_SYNTH__ENGINE="espeak")
    assert made["synth"].env["VOXBUS_SYNTH__ENGINE"] == "tone"
    assert made["dedup"].env["VOXBUS_SYNTH__ENGINE"] == "tone", "every stage must agree on the engine"
    assert made["synth"].env["VOXBUS_SYNTH__SLOTS"] == "3"


def test_only_the_notifier_gets_the_signing_secret(specs):
    made = specs()
    holders = [name for name, spec in made.items() if "VOXBUS_NOTIFIER__SIGNING_SECRET" in spec.env]
    assert holders == ["notify"]


def test_webhooks_of_the_embedded_stack_may_go_to_this_machine_and_nowhere_else_that_is_private(specs):
    assert specs()["notify"].env["VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS"] == '["127.0.0.0/8", "::1/128"]'
    own = specs(VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS='["10.1.0.0/16"]')["notify"].env
    assert own["VOXBUS_NOTIFIER__ALLOWED_PRIVATE_NETWORKS"] == '["10.1.0.0/16"]'


def test_each_has_a_health_port_of_its_own(specs):
    ports = [spec.env["VOXBUS_HEALTH__PORT"] for spec in specs().values()]
    assert len(set(ports)) == len(ports)


def test_weights_take_their_time_to_load(specs):
    assert specs(StageOptions(engine="chattts"))["synth"].start_timeout_s > specs()["synth"].start_timeout_s


def test_a_longer_drain_is_waited_for(specs):
    assert specs(VOXBUS_DRAIN_TIMEOUT_S="60")["synth"].stop_timeout_s > 60


def test_a_restart_of_the_stack_does_not_read_whole_changelogs(specs):
    assert specs()["dedup"].env["VOXBUS_DEDUP__STORE"] == "rocksdb"
