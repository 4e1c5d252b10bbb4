"""Make `examples/contacts.csv` from the airport list in the PyPI package `airportsdata` (see README.md).

uv run --no-project --with airportsdata==20260905 python examples/make_contacts.py
"""
# ruff: noqa: INP001  # a script, no part of a package

import csv
from pathlib import Path

import airportsdata

COLUMNS = ("email", "name", "company", "city", "country")


def main() -> None:
    """Write one contact, an operations desk, for each airport that has an IATA code and a city."""
    airports = airportsdata.load("IATA")
    with Path(__file__).with_name("contacts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for code, airport in sorted(airports.items()):
            if airport["city"]:
                writer.writerow(
                    {
                        "email": f"{code.lower()}@example.com",
                        "name": f"Operations desk {code}",
                        "company": airport["name"],
                        "city": airport["city"],
                        "country": airport["country"],
                    }
                )


if __name__ == "__main__":
    main()
