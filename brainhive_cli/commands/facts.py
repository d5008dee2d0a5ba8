"""Facts of workflow and demo."""

from collections.abc import Mapping

from brainhive_cli.core.facts import Difference, Facts


class WorkflowFacts(Facts):
    """Facts of workflow and demo.

    Attributes:
        commands: Command line of each step.
        findings: Finding of each step.
        retrievals: Path of each eval-retrieval below the runs.
        control_effects: Effect of each control on each head of the model.
    """

    command: str = "workflow"
    commands: list[str] = []
    findings: dict[str, str] = {}
    retrievals: dict[str, str] = {}
    control_effects: list[Difference] = []

    @property
    def has_marked_tables(self) -> bool:
        """True, because each table has the caveats of its step."""
        return True

    @property
    def tested_runs(self) -> Mapping[str, str]:
        """Path of each eval-retrieval below the runs."""
        return self.retrievals

    @property
    def step_findings(self) -> Mapping[str, str]:
        """Finding of each step of a workflow. A demo has tables of its own."""
        return self.findings if self.command == "workflow" else {}
