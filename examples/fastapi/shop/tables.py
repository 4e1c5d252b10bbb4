"""The tables of the shop; their schema is made by `shop/migrations/`."""

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Base of the tables below."""


class Charge(Base):
    """What was charged for an order. The database does not refuse a second one: the job does."""

    __tablename__ = "charges"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    amount: Mapped[int]


class Order(Base):
    """An order of a customer. An id is never given twice, since it is what makes a job the same job."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(100))
    amount: Mapped[int]  # yen
    charged_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    charges: Mapped[list[Charge]] = relationship(order_by=Charge.id)
