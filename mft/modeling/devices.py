"""Accelerators by name: their memory, and the peak of their arithmetic. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from mft.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Accelerator:
    """`words`: all of them stand in the name that torch gives the device. `memory_mib`: what its driver's tool shows as total.

    `flops`: peak dense bf16 multiply-adds counted as two operations, per second; None where it is not known.
    """

    name: str
    words: tuple[str, ...]
    memory_mib: int
    flops: float | None

    @property
    def memory_bytes(self) -> int:
        """Total memory, in bytes."""
        return self.memory_mib * MIB


ACCELERATORS = (
    Accelerator("A100-40G", ("A100", "40GB"), 40_960, 312e12),
    Accelerator("A100-80G", ("A100",), 81_920, 312e12),
    Accelerator("A800-80G", ("A800",), 81_920, 312e12),
    Accelerator("H100-PCIe", ("H100", "PCIe"), 81_559, 756e12),
    Accelerator("H100-NVL", ("H100", "NVL"), 95_830, 835e12),
    Accelerator("H100-80G", ("H100",), 81_559, 989e12),
    Accelerator("H800-80G", ("H800",), 81_559, 989e12),
    Accelerator("H200-NVL", ("H200", "NVL"), 143_771, 835e12),
    Accelerator("H200", ("H200",), 143_771, 989e12),
    Accelerator("GH200", ("GH200",), 97_871, 989e12),
    Accelerator("B200", ("B200",), 183_359, 2250e12),
    Accelerator("L40S", ("L40S",), 46_068, 362e12),
    Accelerator("L4", ("L4",), 23_034, 121e12),
    Accelerator("A40", ("A40",), 46_068, 149.7e12),
    Accelerator("A10", ("A10",), 23_028, 125e12),
    Accelerator("RTX4090", ("RTX", "4090"), 24_564, 165.2e12),
    Accelerator("RTX3090", ("RTX", "3090"), 24_576, 71e12),
    Accelerator("RTX5090", ("RTX", "5090"), 32_607, None),
    Accelerator("RTX-A6000", ("RTX", "A6000"), 49_140, 154.8e12),
    Accelerator("MI300X", ("MI300X",), 196_608, 1307e12),
)
"""The first line all of whose words stand in a device's name counts; a word must stand alone, so that A100 is not read as A10.

Sources: peaks from the makers' data sheets (NVIDIA prints 2:4 sparse numbers from Hopper on, of which these are the half; GeForce and
A6000: bf16 with float32 sums); memory as drivers report it with error correction on, from the makers' product pages and public listings of
`nvidia-smi`. A driver may report a little less; `mft plan` leaves a margin, and on the machine itself the device is asked.
"""


def accelerator_of(device_name: str) -> Accelerator | None:
    """The accelerator that torch calls by this name; None where it is not known.

    >>> accelerator_of("NVIDIA A100-SXM4-40GB").name, accelerator_of("NVIDIA A100-SXM4-80GB").name, accelerator_of("NVIDIA H100 PCIe").name
    ('A100-40G', 'A100-80G', 'H100-PCIe')
    """
    words = set(device_name.replace("-", " ").replace("_", " ").split())
    return next((known for known in ACCELERATORS if words.issuperset(known.words)), None)


def named_accelerator(name: str) -> Accelerator:
    """The accelerator of this name, as `mft plan --gpu` takes it: `H200`, `A100-80G`, `a100`.

    Raises:
        ConfigError: no such name; the known ones are listed.
    """
    wanted = name.lower().replace(" ", "-")
    found = [known for known in ACCELERATORS if known.name.lower() == wanted]
    found = found or [known for known in ACCELERATORS if wanted in set(_short(known))]
    if not found:
        names = [known.name for known in ACCELERATORS]
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError([f"--gpu {name}: not known; {hint}known: {', '.join(names)}; or give its memory, as in --gpu 48GiB"])
    if len(found) > 1:
        raise ConfigError([f"--gpu {name}: which one? {', '.join(known.name for known in found)}"])
    return found[0]


def _short(known: Accelerator) -> Iterator[str]:
    """Other spellings: without the dashes, and up to the first."""
    yield known.name.lower().replace("-", "")
    yield known.name.lower().split("-")[0]
