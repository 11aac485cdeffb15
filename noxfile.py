"""The tests on each Python that is declared: `make test-pythons`, or `nox --session tests-3.12 -- tests/cli`.

Nox looks for `python3.11`, `python3.12` and so on in PATH, and skips the sessions whose Python is missing.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = False

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
DECLARED = nox.project.python_versions({"project": PROJECT})
# Not declared: what is pinned may have no wheels for them yet.
COMING = ["3.14"]
FREE_THREADED = ["3.13t", "3.14t"]
OLDEST, NEWEST = DECLARED[0], DECLARED[-1]

CLUSTER = "tests/integrations/ray"
# What runs in an event loop and is no program of its own.
IN_A_LOOP = ["tests/calls", "tests/sending", "tests/test_client.py", "tests/test_embed_one.py", "tests/test_cancellation.py"]
IN_A_LOOP += ["tests/test_lifecycle.py", "tests/test_closing.py"]
# What needs nothing but the package and its four dependencies.
WITHOUT_EXTRAS = [*IN_A_LOOP, "tests/planning", "tests/rate_limit", "tests/wire", "tests/cache"]
FOR_TESTS = ["pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "blockbuster", "aioresponses"]
FOR_TESTS += ["anyio", "setuptools"]


def install(session: nox.Session, *packages: str, constraints: Path = ROOT / "constraints.txt") -> None:
    """Install at the pinned versions, the build back end too."""
    session.install("--quiet", *packages, env={"PIP_CONSTRAINT": str(constraints)})


@nox.session(python=DECLARED)
def tests(session: nox.Session) -> None:
    """Every test, or those that are named after `--`."""
    install(session, "--editable", ".[dev,bench]")
    session.run("pytest", "--quiet", *(session.posargs or ["tests"]))


@nox.session(python=DECLARED)
def wheel(session: nox.Session) -> None:
    """The wheel, in an environment that has nothing but what the wheel asks for."""
    built = Path(session.create_tmp()) / "dist"
    install(session, "build", "setuptools")
    session.run("python", "-m", "build", "--no-isolation", "--wheel", "--outdir", str(built), ".")
    (path,) = built.glob("*.whl")
    session.run("pip", "uninstall", "--quiet", "--yes", "build", "setuptools")
    install(session, "--force-reinstall", str(path))
    path.unlink()
    with session.chdir(built):
        session.run("python", "-I", str(ROOT / "scripts" / "smoke.py"))


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """The lowest declared version of everything that the package and its extras need, on the oldest Python.

    What these bring along is not pinned, for the pins may be too new. The adapters to LangChain and Ray are left out:
    LangChain's own tests ask for newer versions, and Ray's lowest version is the pinned one.
    """
    extras = PROJECT["optional-dependencies"]
    bounds = [*PROJECT["dependencies"], *extras["cli"], *extras["otel"], "opentelemetry-sdk>=1.30"]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    # Not in a folder for temporary files, which would become that of the tests.
    constraints = Path(session.virtualenv.location) / "lowest.txt"
    constraints.write_text(
        "\n".join(
            [pin for pin in pins if pin.partition("==")[0] in FOR_TESTS] + [bound.replace(">=", "==") for bound in bounds]
        )
    )
    install(session, "--editable", ".[cli,otel]", "opentelemetry-sdk", *FOR_TESTS, constraints=constraints)
    session.run(
        "pytest",
        "--quiet",
        # The conventions of that time did not have all of today's names.
        "--deselect=tests/integrations/test_opentelemetry.py::test_the_page_has_every_span_attribute_and_metric_and_no_other",
        *(session.posargs or [*WITHOUT_EXTRAS, "tests/jobs", "tests/integrations/test_opentelemetry.py"]),
    )


@nox.session(python=NEWEST)
@nox.parametrize("loop", ["uvloop", "eager"])
def loops(session: nox.Session, loop: str) -> None:
    """What runs in an event loop, in another kind of loop."""
    install(session, "--editable", ".[dev,bench]")
    # Eager tasks begin at once, so tests of what happens before a task begins are not about them.
    chosen = "not long and not lazy_tasks" if loop == "eager" else "not long"
    options = ("-p", "tests.event_loops", "--event-loop", loop, "-m", chosen)
    # As a module, which finds the plug-in in this folder.
    session.run("python", "-m", "pytest", "--quiet", *options, *(session.posargs or IN_A_LOOP))


@nox.session(python=COMING + FREE_THREADED)
def coming(session: nox.Session) -> None:
    """Pythons that are not declared yet, with whatever versions there are for them."""
    session.install("--quiet", "--editable", ".", *FOR_TESTS)
    session.run("pytest", "--quiet", *(session.posargs or WITHOUT_EXTRAS))
