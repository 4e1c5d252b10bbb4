"""The exception tree: drawn as it is, and able to cross processes."""

import inspect
import pickle
import re

import click
import pytest

import conventions
from conventions.app import ConventionsApp
from conventions.core import errors
from conventions.core.errors import (
    BrokerUnavailable,
    BusinessError,
    ConfigurationError,
    ConventionError,
    CredentialInPayload,
    DeclarationError,
    PayloadError,
    ScheduleError,
    TaskModuleError,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, ConventionError)]


def drawn() -> dict[str, str]:
    """Each class of the docstring's tree, with the class above it."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│ ]*(?:├── |└── )?)([A-Z]\w+)", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        while above and above[-1][0] >= depth:
            above.pop()
        if above:
            found[name] = above[-1][1]
        above.append((depth, name))
    return found


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    """Every class is drawn once, below its first base."""
    assert drawn() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_says_what_it_means(cls: type[Exception]) -> None:
    """Each has a docstring of its own."""
    assert cls.__dict__.get("__doc__")


def example(cls: type[Exception]) -> Exception:
    """An error as the code raises it, with an attribute that somebody added."""
    error = cls(["first fault", "second fault"]) if issubclass(cls, ConfigurationError) else cls("what went wrong")
    error.hint = "added later"  # type: ignore[attr-defined]  # any code may add one
    return error


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling(cls: type[Exception]) -> None:
    """Class, message, arguments and attributes are the same in another process."""
    error = example(cls)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert copy.__dict__ == error.__dict__


EXPORTED = [one for one in vars(conventions).values() if isinstance(one, type) and issubclass(one, ConventionError)]


@pytest.mark.parametrize("cls", EXPORTED, ids=lambda cls: cls.__name__)
def test_an_error_that_a_team_imports_is_of_the_package(cls: type[Exception]) -> None:
    """Results and pickles name it so, whatever file it is in."""
    assert cls.__module__ == "conventions"
    assert b"core.errors" not in pickle.dumps(cls("what went wrong"))


@pytest.mark.parametrize("module", ["conventions", "conventions.core.errors", "conventions.errors"])
def test_a_stored_error_is_read_by_every_name_that_it_ever_had(app: ConventionsApp, module: str) -> None:
    """As an earlier release has stored it."""
    stored = {"exc_type": "BusinessError", "exc_message": ["no such user"], "exc_module": module}
    read = app.backend.exception_to_python(stored)
    assert type(read) is BusinessError
    assert read.args == ("no such user",)


@pytest.mark.parametrize(
    ("cls", "built_in"),
    [
        (PayloadError, ValueError),
        (CredentialInPayload, ValueError),
        (BrokerUnavailable, ConnectionError),
        (DeclarationError, TypeError),
        (ScheduleError, ValueError),
        (ConfigurationError, click.ClickException),
        (TaskModuleError, click.ClickException),
    ],
)
def test_an_error_is_also_the_built_in_one(cls: type[Exception], built_in: type[Exception]) -> None:
    """Code that knows only the built-in class catches ours, too."""
    assert issubclass(cls, ConventionError)
    assert issubclass(cls, built_in)


def test_a_configuration_error_ends_a_command_with_all_faults_and_status_2() -> None:
    """Click prints every fault on a line and exits with 2; `faults` keeps them apart."""

    @click.command()
    def command() -> None:
        raise ConfigurationError(["CONVENTIONS_A: wrong", "CONVENTIONS_B: wrong, too"])

    from click.testing import CliRunner

    result = CliRunner().invoke(command)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "CONVENTIONS_A: wrong\nCONVENTIONS_B: wrong, too" in result.stderr
    assert ConfigurationError(["a", "b"]).faults == ("a", "b")
