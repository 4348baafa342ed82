"""Commands that are imported when they are run, completed or asked for their own help.

This module decides that the help of the program costs no command's imports. It must not know any command.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

__all__ = ["LazyCommand", "lazy_group"]


class LazyCommand(TyperCommand):
    """What the help of the program says of a command, and where the command is.

    Args:
        name: Its name.
        place: ``module:attribute`` of the function, of the `typer.Typer` with the commands below it, or of their group.
        help: The first sentence of its help.
        panel: The panel that lists it.
    """

    def __init__(self, name: str, place: str, *, help: str, panel: str) -> None:  # noqa: A002 — as in Typer
        super().__init__(name, help=help, rich_help_panel=panel)
        self._place = place

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401 — Typer's types have no public name
        """Let the command itself read its arguments; whatever happens from then on is its own doing."""
        return self.loaded().make_context(info_name, args, parent, **extra)

    def loaded(self) -> Any:  # noqa: ANN401
        """Return the command itself."""
        module, _, attribute = self._place.partition(":")
        app = getattr(import_module(module), attribute)
        if isinstance(app, TyperGroup):
            return app
        if not isinstance(app, typer.Typer):
            function, app = app, typer.Typer(add_completion=False)
            app.command(self.name)(function)
        return get_command(app)


def lazy_group(commands: Iterable[LazyCommand]) -> type[TyperGroup]:
    """Return the class of a group with these commands, for ``typer.Typer(cls=…)``."""
    by_name = {str(command.name): command for command in commands}

    class Group(TyperGroup):
        """The group."""

        def __init__(self, **given: Any) -> None:  # noqa: ANN401 — Typer fixes the signature
            super().__init__(**given)
            self.commands = {**self.commands, **by_name}

    return Group
