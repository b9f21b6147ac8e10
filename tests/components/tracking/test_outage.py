from collections.abc import Callable

import pytest

from components.tracking import outage
from components.tracking.outage import Backlog, Outage, PatientClient, TrackerAway, without_credentials


class Server:
    """Answers, or does not, and keeps what it was told."""

    def __init__(self) -> None:
        self.is_up = True
        self.told: list[int] = []
        self.num_asked = 0
        self.comes_back_at = 0  # the call, from 1, that finds it up again

    def tell(self, number: int) -> int:
        self.num_asked += 1
        if self.num_asked == self.comes_back_at:
            self.is_up = True
        if not self.is_up:
            raise ConnectionError("http://me:secret@host refused\nand much more")
        if number < 0:
            raise ValueError("a negative note")
        self.told.append(number)
        return number

    def note(self, number: int) -> Callable[[], int]:
        return lambda: self.tell(number)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.01)
    return Server()


def absence(seconds: float) -> Outage:
    found = Outage("http://me:secret@host", lambda error: isinstance(error, ConnectionError))
    found.seconds = seconds
    return found


def test_notes_wait_in_order_and_nobody_is_asked_before_a_pause_has_passed(server: Server) -> None:
    backlog = Backlog(absence(60))
    backlog.add(server.note(0))
    server.is_up, server.comes_back_at = False, 4
    backlog.add(server.note(1))
    outage_began = server.num_asked
    backlog.add(server.note(2))
    backlog.add(server.note(3))
    assert server.num_asked == outage_began
    assert backlog.flush() == 0
    assert server.told == [0, 1, 2, 3]
    backlog.add(server.note(4))
    assert server.told[-1] == 4


def test_a_server_that_stays_away_costs_the_notes_and_nothing_else(server: Server, caplog) -> None:
    backlog = Backlog(absence(0.05))
    server.is_up = False
    for number in range(3):
        backlog.add(server.note(number))
    assert backlog.flush() == 3
    assert "3 notes of a training are not in the tracking server http://host" in caplog.text
    assert "secret" not in caplog.text


def test_the_oldest_notes_go_where_there_are_too_many(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "MAX_WAITING", 2)
    backlog = Backlog(absence(60))
    server.is_up, server.comes_back_at = False, 3
    for number in range(4):
        backlog.add(server.note(number))
    assert backlog.flush() == 2
    assert server.told == [2, 3]


def test_a_refused_note_is_lost_with_a_warning_and_holds_nobody_up(server: Server, caplog) -> None:
    backlog = Backlog(absence(60))
    backlog.add(server.note(-1))
    server.is_up, server.comes_back_at = False, 4
    for number in (1, -2, 2):
        backlog.add(server.note(number))
    assert backlog.flush() == 2
    assert server.told == [1, 2]
    assert caplog.text.count("refused by http://host: ValueError: a negative note") == 2


def test_calls_are_repeated_until_the_server_answers(server: Server) -> None:
    server.is_up, server.comes_back_at = False, 3
    client = PatientClient(server, absence(60))
    assert client.tell(7) == 7
    assert server.num_asked == 3
    with pytest.raises(ValueError, match="a negative note"):
        client.tell(-1)


def test_patience_is_counted_once_for_all_calls_and_starts_anew_when_the_server_was_back(server: Server) -> None:
    away = absence(0.05)
    client = PatientClient(server, away)
    server.is_up = False
    with pytest.raises(TrackerAway, match=r"http://host does not answer \(ConnectionError: http://host refused\)"):
        client.tell(1)
    asked = server.num_asked
    assert asked > 1
    with pytest.raises(TrackerAway):
        client.tell(1)
    assert server.num_asked == asked + 1
    server.is_up = True
    assert client.tell(1) == 1
    server.is_up, server.comes_back_at = False, server.num_asked + 2
    assert client.tell(2) == 2


def test_an_address_is_shown_without_its_credentials() -> None:
    assert without_credentials("https://me:secret@host:5000/path") == "https://host:5000/path"
    assert without_credentials("sqlite:////tmp/a@b/mlflow.db") == "sqlite:////tmp/a@b/mlflow.db"
