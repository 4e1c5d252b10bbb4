"""Who has a permission of Django may run the job that requires it, as long as he has it; `system` and `beat` have roles of ours (R20)."""

import json

import pytest

from tests.django_project import DjangoProject
from tests.support import wait_until

JOBS = """

class CountOrders(ImmediateTask):
    \"\"\"Count the orders.\"\"\"

    idempotent_on = ("number",)
    requires = "orders.view_order"

    def run(self, number: int) -> None:
        with open("counted", "a") as file:
            file.write(f"{number} by {self.actor}\\n")
"""
USERS = """
from django.contrib.auth.models import Group, Permission, User
view = Permission.objects.get(codename="view_order")
may = User.objects.create_user("may")
may.user_permissions.add(view)
group = Group.objects.create(name="readers")
group.permissions.add(view)
of_group = User.objects.create_user("of_group")
of_group.groups.add(group)
inactive = User.objects.create_user("inactive", is_active=False)
inactive.user_permissions.add(view)
boss = User.objects.create_superuser("boss")
may_not = User.objects.create_user("may_not")
User.objects.create_user("system").user_permissions.add(view)
import json
print(json.dumps({user.username: user.pk for user in User.objects.all()}))
"""
ASK = """
import json, sys
from shop import app
from conventions.django.authorizer import DjangoAuthorizer

class ByName(DjangoAuthorizer):
    field = "username"

class ByMoment(DjangoAuthorizer):
    field = "date_joined"  # as a UUID, it takes some texts only

for one in ({kind}(app),):
    print(json.dumps([one.allows(actor, "orders.view_order", "t", {{}}) for actor in {actors!r}]))
"""


@pytest.fixture
def guarded(project: DjangoProject) -> DjangoProject:
    """A project with users, and a job that requires a permission."""
    project.say('INSTALLED_APPS.append("django.contrib.auth")')
    project.say('CONVENTIONS["AUTHORIZER"] = "conventions.django.authorizer:DjangoAuthorizer"')
    with (project.folder / "orders" / "jobs.py").open("a") as file:
        file.write(JOBS)
    project.manage("migrate")
    return project


def test_who_may_is_what_django_says(guarded: DjangoProject) -> None:
    """By his own permission, by his group, as a superuser; not one who is inactive, unknown, or no user at all."""
    users = json.loads(guarded.python(USERS))
    actors = [str(users[name]) for name in ("may", "of_group", "boss", "inactive", "may_not")]
    actors += ["999", "may", f"0{users['may']}", "system", "beat", ""]
    expected = [True, True, True, *[False] * 8]
    assert json.loads(guarded.python(ASK.format(kind="DjangoAuthorizer", actors=actors))) == expected
    names = ["may", "of_group", "boss", "inactive", "may_not", "MAY", str(users["may"]), "system"]
    assert json.loads(guarded.python(ASK.format(kind="ByName", actors=names))) == [True, True, True, *[False] * 5]
    assert json.loads(guarded.python(ASK.format(kind="ByMoment", actors=["bob"]))) == [False]
    for command in (["grant", "robots", "orders.view_order"], ["assign", "beat", "robots"]):
        assert guarded.run("permissions", *command, app="shop").returncode == 0
    found = guarded.python(ASK.format(kind="DjangoAuthorizer", actors=["beat", "system", "robots"]))
    assert json.loads(found) == [True, False, False]


def test_a_user_who_has_left(guarded: DjangoProject) -> None:
    """His job waits, he is made inactive, the worker starts: his job is denied, and that of another user runs."""
    users = json.loads(guarded.python(USERS))
    may, boss = users["may"], users["boss"]
    guarded.python(
        "from conventions import acting_as\nfrom orders.jobs import CountOrders\n"
        f"for number, actor in enumerate(({may}, {boss})):\n"
        "    with acting_as(str(actor)): CountOrders.delay(number=number)\n"
    )
    guarded.python(
        f"from django.contrib.auth.models import User\nUser.objects.filter(pk={may}).update(is_active=False)"
    )
    with guarded.worker("-c", "1", app="shop"):
        counted = guarded.folder / "counted"
        wait_until(counted.exists, 30, "one has run")
        found = wait_until(lambda: guarded.json("dead-letters", "list"), 30, "the other one is denied")
    assert [(one["error"], one["actor"]) for one in found] == [("PermissionDenied", str(may))]
    assert counted.read_text() == f"1 by {boss}\n"
