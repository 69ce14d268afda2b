"""Whether a program that a model wrote can be run apart from everything else."""

from mft.doctor.context import Context
from mft.doctor.finding import Finding, fault, ok, warning
from mft.sandbox.probe import best, probe_sandboxes

REMEDY = ("install bubblewrap (apt install bubblewrap, dnf install bubblewrap), or podman or docker with an image that has Python "
          "(MFT_SANDBOX_IMAGE); in a container, allow user namespaces (docker run --security-opt seccomp=unconfined "
          "--security-opt apparmor=unconfined)")


def check_sandbox(context: Context) -> Finding:
    """Each kind of isolation, tried with a harmless program. Its lack is a fault only where the config runs programs."""
    probes = probe_sandboxes()
    facts = {probe.name: {"works": probe.works, "reason": probe.reason} for probe in probes}
    chosen = best(probes)
    if chosen is not None:
        return ok(f"{chosen.name}: {chosen.reason}", kinds=facts, chosen=chosen.name)
    said = "no sandbox: " + "; ".join(f"{probe.name}: {probe.reason}" for probe in probes)
    needed = context.subject is not None and context.subject.runs_code
    return fault(said, REMEDY, kinds=facts) if needed else warning(said, REMEDY, kinds=facts)
