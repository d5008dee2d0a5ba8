"""Faults that tests must always notice."""

from typing import NamedTuple

from tools.mutants import ROOT
from tools.mutants.operators import Mutant


class Fault(NamedTuple):
    """Code that the package holds once, and the code that replaces it."""

    code: str
    fault: str


FAULTS = (
    Fault("return 1 + count_at_least(", "return 0 + count_at_least("),
    Fault(".contiguous() - TIE_TOLERANCE", ".contiguous() + TIE_TOLERANCE"),
    Fault("    n_wrong = pool - targets\n", "    n_wrong = pool\n"),
    Fault(
        "np.clip(count - subset_size - n_before, 0, None)",
        "np.clip(count - n_before, 0, None)",
    ),
    Fault(
        "(correlations < paired_correlations).double()",
        "(correlations > paired_correlations).double()",
    ),
    Fault("float(estimates.var(ddof=1)) / subjects", "0.0"),
    Fault("reach = stdtrit(dof, UPPER_QUANTILE) * error", "reach = error"),
    Fault(
        "float(2 * stdtr(dof, -abs(mean) / error))",
        "float(stdtr(dof, -abs(mean) / error))",
    ),
    Fault("z / (1 + z**2 / size) * np.sqrt(", "z * np.sqrt("),
    Fault(
        "adjusted_p_values = false_discovery_control(test_p_values).tolist()",
        "adjusted_p_values = test_p_values",
    ),
    Fault("centred = signal - self.mean", "centred = signal"),
    Fault("directions / np.sqrt(np.maximum(", "directions / (np.maximum("),
    Fault("(stimulus >= 0) & ~data.held_out[stimulus]", "stimulus >= 0"),
    Fault("self.scored_modules.load_state_dict(self.weights)", "pass"),
    Fault("[learner.steps_done :]", "[:]"),
    Fault("n_seen > max_seen_share * len(shown_rows)", "n_seen > len(shown_rows)"),
    Fault("derangement[order] = np.roll(order, 1)", "derangement[order] = order"),
    Fault(
        "torch.lerp(values[self.partner], values, share)",
        "torch.lerp(values, values[self.partner], share)",
    ),
    Fault("progress = (1 - math.cos(math.pi * progress)) / 2", "pass"),
    Fault(
        "baseline = slice(0, 1 - offset) if self.steps.baseline",
        "baseline = slice(0, 1) if self.steps.baseline",
    ),
    Fault("(onsets + start >= 0) & (onsets + stop < samples)", "onsets + start >= 0"),
    Fault(
        "spread = np.minimum((fourth_moments - squares)",
        "spread = np.maximum((fourth_moments - squares)",
    ),
    Fault(
        'reference_rows = members[splits[members] == "train"]',
        "reference_rows = members",
    ),
    Fault("if file_seal.digest != _digest(", "if not _digest("),
    Fault("rows.verify(slice(start, start + n_rows))", "rows.verify(slice(0, 0))"),
    Fault("if not is_equal.all():", "if not is_equal.size:"),
    Fault("while file.read(CHUNK_BYTES):", "while False:"),
    Fault("if tar.fileobj.read(tarfile.BLOCKSIZE).strip(tarfile.NUL):", "if False:"),
    Fault(
        'frozen=True, extra="forbid", protected_namespaces',
        'frozen=True, extra="ignore", protected_namespaces',
    ),
    Fault("return passed_s < MISSED_HEARTBEATS * HEARTBEAT_S", "return True"),
    Fault("raise Refused(full_name)", "return super().find_class(module, name)"),
    Fault(
        'if name not in OWN_CODE and os.environ.get(ALLOW_VARIABLE) != "1":',
        "if False:",
    ),
    Fault(
        "frames = x.transpose(1, 2).flatten(0, 1)  #", "return super().forward(x)  #"
    ),
    Fault("/ max(n_frames - 1, 1)", "/ max(n_frames, 1)"),
    Fault(
        "dropout(project(text + self.prior.scale * image))",
        "dropout(project(text + image))",
    ),
    Fault("start = len(items) * self.rank // self.processes", "start = 0"),
    Fault("fixed_target = target.detach()", "fixed_target = target"),
    Fault(
        "            to_target = (to_target + to_prediction) / 2\n",
        "            to_target = to_target + to_prediction\n",
    ),
    Fault("for key in self.FINGERPRINT_EXCLUDE:", "for key in ():"),
    Fault(
        "for index in sorted(unet_sizes.keys() | prior_sizes.keys()):",
        "for index in ():",
    ),
    Fault(
        "lengths.astype(np.float64) ** 2).mean(1)",
        "lengths.astype(np.float64) ** 2).max(1)",
    ),
)
"""Faults that the tests have noticed since they were first planted."""


def fixed_mutant(fault: Fault) -> Mutant:
    """Make the mutant of a fault.

    Raises:
        LookupError: If the package does not hold its code exactly once.
    """
    code = fault.code.encode()
    sources = {}
    for path in sorted((ROOT / "brainhive_cli").rglob("*.py")):
        source = path.read_bytes()
        if code in source:
            sources[path] = source
    if b"".join(sources.values()).count(code) != 1:
        raise LookupError(
            f"{len(sources)} files hold {fault.code!r}, not a single file once"
        )
    ((path, source),) = sources.items()
    start = source.index(code)
    # the first line of the code that is not blank
    n_blank = len(code) - len(code.lstrip())
    return Mutant(
        path=str(path.relative_to(ROOT)),
        line=source[: start + n_blank].count(b"\n") + 1,
        kind="fixed",
        start=start,
        stop=start + len(code),
        before=fault.code,
        after=fault.fault,
    )
