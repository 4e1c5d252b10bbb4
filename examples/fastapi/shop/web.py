"""The web service: take an order, and say what became of it."""

from typing import Literal

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy.orm import joinedload

from shop import app
from shop.jobs import ChargeOrder
from shop.tables import Order

web = FastAPI(title="Shop")


class NewOrder(BaseModel):
    """What a customer asks for."""

    customer: str = Field(min_length=1, max_length=100)
    amount: int = Field(gt=0, le=10_000_000, description="yen")


class Taken(BaseModel):
    """The answer to an order that was taken."""

    order_id: int
    message_id: str


class State(BaseModel):
    """What became of an order."""

    customer: str
    amount: int
    state: Literal["waiting", "charged"]
    charges: list[int]


# `def`, not `async def`: SQL blocks. FastAPI runs a `def` in a thread, and answers others meanwhile.
@web.post("/orders", status_code=202)
def take(wanted: NewOrder) -> Taken:
    """Store an order and its job in one transaction. The job is sent when that is committed, as soon as a broker takes it."""
    with app.database.session() as session:
        order = Order(customer=wanted.customer, amount=wanted.amount)
        session.add(order)
        session.flush()  # gives it its id
        message = ChargeOrder.enqueue_in(session, order_id=order.id)
        return Taken(order_id=order.id, message_id=message.id)


@web.get("/orders/{order_id}")
def state(order_id: int) -> State:
    """Whether it is charged, and by which charges."""
    with app.database.session(read_only=True) as session:
        # One statement: a charge between two of them would be in the second alone.
        order = session.get(Order, order_id, options=[joinedload(Order.charges)])
        if order is None:
            raise HTTPException(404, f"no order {order_id}")
        return State(
            customer=order.customer,
            amount=order.amount,
            state="waiting" if order.charged_at is None else "charged",
            charges=[one.id for one in order.charges],
        )
