"""Options that several commands have, with one help text each; see `actor_option` and `output_options` for the others."""

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON alone.")
REASON = click.option("--reason", help="Why; kept in the audit.")
NEEDED_REASON = click.option("--reason", required=True, help="Why; kept in the audit.")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
