"""Shapes of keys and tokens, as their issuers document them so that scanners find them: what logs leave out, and what no payload may hold.

Sources: RFC 7519 (JSON web tokens), and the pages of AWS, Azure, GitHub, GitLab, Slack, Stripe, Google, SendGrid, npm, PyPI, Hugging Face, OpenAI and
Anthropic about the prefixes of their keys, connection strings and webhooks.
"""

import re

ISSUED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?P<aws>(?:AKIA|ASIA)[0-9A-Z]{16})(?![0-9A-Z])"
    r"|(?P<github>gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"
    r"|(?P<gitlab>glpat-[\w-]{20,})"
    r"|(?P<slack>xox[abeoprs]-[\w-]{10,}|xapp-\d-[\w-]{10,})"
    r"|(?P<slack_hook>hooks\.slack\.com/services/\w+/\w+/\w+)"
    r"|(?P<azure>(?:AccountKey|SharedAccessKey)=[\w+/=]{20,})"
    r"|(?P<stripe>(?:sk|rk)_(?:live|test)_\w{10,}|whsec_[\w+/=]{16,})"
    r"|(?P<google>AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,})"
    r"|(?P<sendgrid>SG\.[\w-]{16,}\.[\w-]{16,})"
    r"|(?P<npm>npm_[A-Za-z0-9]{30,})"
    r"|(?P<pypi>pypi-AgE[\w-]{40,})"
    r"|(?P<hugging_face>hf_[A-Za-z0-9]{30,})"
    r"|(?P<llm>sk-(?:ant|proj|svcacct|admin|or-v1)-[\w-]{20,}|sk-[A-Za-z0-9]{40,})"
    r")"
)
"""The name of the group that matches says whose it is."""
WHOSE = {
    "aws": "an access key of AWS", "github": "a token of GitHub", "gitlab": "a token of GitLab", "slack": "a token of Slack",
    "slack_hook": "a webhook of Slack", "azure": "a key of Azure", "stripe": "a key of Stripe", "google": "a key of Google", "sendgrid": "a key of SendGrid", "npm": "a token of npm", "pypi": "a token of PyPI",
    "hugging_face": "a token of Hugging Face", "llm": "a key of a language model",
}  # fmt: skip
JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*")


def may_hold_issued(text: str) -> bool:
    """Whether `ISSUED` or `JWT` may be in a text: `False` is sure.

    Each line of a log comes here, and many a payload. A chain of these takes less than half a microsecond; a loop over them four times as long.
    """
    return (
        "AKIA" in text or "ASIA" in text or "ghp_" in text or "gho_" in text or "ghu_" in text or "ghs_" in text or "ghr_" in text
        or "github_pat_" in text or "glpat-" in text or "xox" in text or "xapp-" in text or "hooks.slack.com/" in text or "AccountKey=" in text or "SharedAccessKey=" in text or "k_live_" in text or "k_test_" in text
        or "whsec_" in text or "AIza" in text or "ya29." in text or "GOCSPX-" in text or "SG." in text or "npm_" in text or "pypi-" in text
        or "hf_" in text or "sk-" in text or "eyJ" in text
    )  # fmt: skip
