"""The job of embed."""

from brainhive_cli.commands import embed
from brainhive_cli.core.runs import READ_ONLY

ENCODER = "python:brainhive_cli.models.encoders.python:example"


def test_a_preview_writes_no_split(run_command, pictures):
    arguments = [
        f"dataset={{kind: image-folder, root: {pictures}}}",
        f"encoders=['{ENCODER}']",
        "held_out={by: clusters, folds: 2}",
    ]
    split_file = run_command("embed", *arguments).files["split"]
    assert split_file.is_file()
    split_file.unlink()

    result = embed.run(embed.Recipe.resolve("embed", None, {}, arguments), READ_ONLY)

    assert "split" not in result.files
    assert not split_file.exists()
