"""The tests of the asynchronous client, run with the blocking one: the same results, the same errors."""

from tests.sync.modules import MODULES, NOT_FOR_BLOCKING_CALLS

for _module in MODULES:
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and callable(_test) and _name not in NOT_FOR_BLOCKING_CALLS:
            globals()[f"{_name}__{_module.__name__.rpartition('.')[2]}"] = _test
