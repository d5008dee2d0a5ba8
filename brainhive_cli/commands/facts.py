"""Facts of workflow and demo."""

from collections.abc import Mapping

from brainhive_cli.core.results import Difference, Facts


class WorkflowFacts(Facts):
    """Facts of workflow and demo.

    Attributes:
        commands: Command line of each step.
        findings: Finding of each step.
        step_runs: Run of each step, as COMMAND/NAME.
        control_effects: Effect of each control on each head of the model.
    """

    command: str = "workflow"
    commands: list[str] = []
    findings: dict[str, str] = {}
    step_runs: dict[str, str] = {}
    control_effects: list[Difference] = []

    @property
    def has_marked_tables(self) -> bool:
        """True, because each table has the caveats of its step."""
        return True

    @property
    def tested_runs(self) -> Mapping[str, str]:
        """Path of each eval-retrieval below the runs."""
        return {
            step: run
            for step, run in self.step_runs.items()
            if run.startswith("eval-retrieval/")
        }

    @property
    def compared_steps(self) -> list[str]:
        """Steps whose runs are compared, such as `eval-retrieval`."""
        return list(dict.fromkeys(name.partition(" · ")[0] for name in self.compared))

    @property
    def step_findings(self) -> Mapping[str, str]:
        """Finding of each step of a workflow. A demo has tables of its own."""
        return self.findings if self.command == "workflow" else {}
