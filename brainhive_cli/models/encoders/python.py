"""Anyone's own network: a callable that returns a module and its preprocessing."""

import ast
import inspect
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from brainhive_cli.core import documents, foreign_code
from brainhive_cli.core.command import Input
from brainhive_cli.core.errors import RecipeError, find_error
from brainhive_cli.models.encoders import Encoder, EncoderConfig


class Config(EncoderConfig):
    """`python:package.module:function`, called once, returns (module, preprocess).

    The module takes [B, 3, H, W] and gives [B, *shape]; preprocess takes an RGB picture
    and gives [3, H, W]. Where captions or masks are read, preprocess takes a caption or
    a mask [H, W], and gives a tensor of one size for all.
    """

    source: str = Field("", description="python:package.module:function")
    reads: Literal["pixels", "captions", "masks"] = Field(
        "pixels",
        # stores name it only where it is chosen
        exclude_if=lambda reads: reads == "pixels",
        description=(
            "what of a stimulus is encoded: pixels, or each of its captions or masks"
        ),
    )
    arguments: dict[str, Any] = Field(
        {}, description="keyword arguments of the function"
    )

    def inputs(self) -> list[Input]:
        """List the function, which is called where its code may run."""
        return [Input(f"encoder {self.source}", error=find_error(self.build))]

    def build(self) -> Encoder:
        """Import and call the function.

        Raises:
            RecipeError: if the user did not allow it, or there is no such function.
            MissingExtra: if its package is not installed.
        """
        # user code is imported only where the user allowed it to run
        module_name, _, function_name = self.source.removeprefix("python:").partition(
            ":"
        )
        module = foreign_code.import_module(
            module_name, self.source, self.source, __name__
        )
        try:
            function = getattr(module, function_name)
        except AttributeError as error:
            raise RecipeError(
                f"{self.source}: {error}", "write python:package.module:function"
            ) from error

        # anything but module and preprocessing is refused here
        pair = function(**self.arguments)
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise RecipeError(
                f"{self.source} returned {type(pair).__name__}",
                "return (module, preprocess)",
            )

        # the digest of the code tells stores of an edited function apart
        weights = {"source": self.source, "network": _digest_code(module)}
        return Encoder(
            *pair, preprocessing=self.source, weights=weights, reads=self.reads
        )


def _digest_code(module: ModuleType) -> str:
    """Digest the code of a module without its comments and layout; empty where there is
    no source.
    """
    try:
        code = ast.unparse(ast.parse(inspect.getsource(module)))
    except (OSError, TypeError, SyntaxError):  # compiled
        return ""
    return documents.digest_text(code)


TINY = Config(source="python:brainhive_cli.models.encoders.python:example")


def example() -> tuple[Any, Any]:
    """Return the simplest encoder, as a pattern to copy: mean colour on a 2 × 2
    grid.
    """
    import torch
    from torchvision.transforms import v2

    steps = [v2.Resize((2, 2)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return torch.nn.Flatten(), v2.Compose(steps)
