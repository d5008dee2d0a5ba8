"""Encoder of a user: a function that returns a module and its preprocessing."""

import ast
import inspect
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from brainhive_cli.core.base import RecipeError, find_error
from brainhive_cli.core.files import Input, documents, foreign_code
from brainhive_cli.models.encoders import Encoder, EncoderConfig


class Config(EncoderConfig):
    """Encoder of a function `python:package.module:function` of the user.

    The function is called once, and returns (module, preprocess). `preprocess` converts
    an RGB picture to [3, H, W], or a caption or mask [H, W] to a tensor of a fixed
    size. The module maps [B, 3, H, W] to [B, *shape].
    """

    source: str = Field("", description="python:package.module:function")
    reads: Literal["pixels", "captions", "masks"] = Field(
        "pixels",
        # stores name the key only if it is set
        exclude_if=lambda reads: reads == "pixels",
        description="content that is encoded: pixels, or each caption or mask",
    )
    arguments: dict[str, Any] = Field(
        {}, description="keyword arguments of the function"
    )

    def inputs(self) -> list[Input]:
        """List the function, after a trial call if its code may run."""
        return [Input(f"encoder {self.source}", error=find_error(self.build))]

    def build(self) -> Encoder:
        """Import and call the function.

        Raises:
            RecipeError: if the user did not allow it, if there is no such function, or
                if it does not return a pair.
            MissingExtra: if its package is not installed.
        """
        path = self.source.removeprefix("python:")
        module_name, _, function_name = path.partition(":")
        module = foreign_code.import_module(
            module_name, self.source, self.source, __name__
        )
        try:
            function = getattr(module, function_name)
        except AttributeError as error:
            raise RecipeError(
                f"{self.source}: {error}", "write python:package.module:function"
            ) from error

        result = function(**self.arguments)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise RecipeError(
                f"{self.source} returned {type(result).__name__}",
                "return (module, preprocess)",
            )

        # the digest changes when the function is edited
        network, preprocess = result
        return Encoder(
            network=network,
            preprocess=preprocess,
            preprocessing=self.source,
            weights={"source": self.source, "network": _digest_code(module)},
            reads=self.reads,
        )


def _digest_code(module: ModuleType) -> str:
    """Hash the code of a module, without comments and layout.

    Returns:
        The digest, or an empty text if there is no source code.
    """
    try:
        code = ast.unparse(ast.parse(inspect.getsource(module)))
    except (OSError, TypeError, SyntaxError):
        return ""
    return documents.digest_text(code)


TINY = Config(source="python:brainhive_cli.models.encoders.python:example")


def example() -> tuple[Any, Any]:
    """Return an example of an encoder: the mean colours on a 2 × 2 grid."""
    import torch
    from torchvision.transforms import v2

    steps = [v2.Resize((2, 2)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    return torch.nn.Flatten(), v2.Compose(steps)
