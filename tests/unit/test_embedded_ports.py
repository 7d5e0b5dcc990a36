import json
import socket

import pytest

from infra.embedded.ports import NoFreePortError, PortBook, is_free


@pytest.fixture
def listening():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_is_the_same_after_a_restart(tmp_path):
    first = PortBook(tmp_path / "ports.json").port("redis")
    assert PortBook(tmp_path / "ports.json").port("redis") == first


def test_a_remembered_port_that_was_taken_is_replaced(tmp_path, listening):
    (tmp_path / "ports.json").write_text(json.dumps({"redis": listening}))
    assert PortBook(tmp_path / "ports.json").port("redis") != listening


def test_the_port_asked_for_is_taken_or_refused(tmp_path, listening):
    book = PortBook(tmp_path / "ports.json")
    free = PortBook(tmp_path / "other.json").port("x")
    assert book.port("gateway", wanted=free) == free
    with pytest.raises(NoFreePortError, match=f"port {listening} for gateway is taken"):
        book.port("gateway", wanted=listening)


def test_names_never_share_a_port(tmp_path):
    book = PortBook(tmp_path / "ports.json")
    ports = [book.port(f"name{number}") for number in range(50)]
    assert len(set(ports)) == 50


def test_the_port_above_is_kept_free_for_its_owner(tmp_path):
    book = PortBook(tmp_path / "ports.json")
    low = book.port("admin", and_above=10_000)
    (tmp_path / "other.json").write_text(json.dumps({"redis": low + 10_000}))
    assert is_free(low + 10_000)
    assert low + 10_000 < 32_768


@pytest.mark.parametrize("content", ["", "{", "[]", '{"redis": "x"}'])
def test_a_broken_book_is_begun_anew(tmp_path, content):
    (tmp_path / "ports.json").write_text(content)
    assert PortBook(tmp_path / "ports.json").port("redis") > 0
