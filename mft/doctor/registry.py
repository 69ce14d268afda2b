"""Which checks there are, in the order in which they are shown."""

from mft.doctor.checks.base import check_base, check_tokenizer
from mft.doctor.checks.devices import check_torch
from mft.doctor.checks.environment import check_environment
from mft.doctor.checks.hub import check_hub
from mft.doctor.checks.isolation import check_sandbox
from mft.doctor.checks.kernels import check_attention, check_four_bit
from mft.doctor.checks.limits import check_open_files, check_shared_memory
from mft.doctor.checks.memory import check_memory
from mft.doctor.checks.packages import check_imports, check_packages, check_python
from mft.doctor.checks.ranks import check_all_reduce
from mft.doctor.checks.storage import check_storage
from mft.doctor.checks.wanted import check_extras, check_recipes
from mft.doctor.finding import Check

CHECKS = (
    Check("environment", check_environment),
    Check("python", check_python),
    Check("packages", check_packages),
    Check("imports", check_imports, 180),
    Check("extras", check_extras),
    Check("torch", check_torch, 90),
    Check("all-reduce", check_all_reduce, 300),
    Check("4-bit", check_four_bit, 100),
    Check("attention", check_attention, 130),
    Check("memory", check_memory, 130),
    Check("shared-memory", check_shared_memory),
    Check("open-files", check_open_files),
    Check("storage", check_storage, 90),
    Check("hub", check_hub, 60),
    Check("base", check_base, 90),
    Check("tokenizer", check_tokenizer, 60),
    Check("recipes", check_recipes, 60),
    Check("sandbox", check_sandbox, 60),
)
