"""Options that several commands have, with one help text each; see `actor_option` and `output_options` for the others."""

import click

from conventions.core.audit_reason import fault_of_reason

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
REASON = click.option("--reason", help="Why; kept in the audit.")


def _said_why(_: click.Context, __: click.Parameter, reason: str) -> str:
    if fault := fault_of_reason(reason):
        raise click.BadParameter(fault)
    return reason


NEEDED_REASON = click.option("--reason", required=True, callback=_said_why, help="Why; kept in the audit.")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
