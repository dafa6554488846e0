"""Sends, sends to many, burning."""

from __future__ import annotations

import random
from typing import Any

from chain.codec.registry import message_class
from tests.simulation.world import Kind, World, coin

PACKAGE = "cosmos.bank.v1beta1"


def send(choose: random.Random, world: World) -> Any:
    sender = world.someone()
    recipient = world.stranger() if choose.random() < 0.03 else world.someone()
    amount = world.part_of(world.spendable(sender))
    return message_class(f"{PACKAGE}.MsgSend")(from_address=sender.text, to_address=recipient.text, amount=[coin(amount or 1)])


def send_too_much(choose: random.Random, world: World) -> Any:
    sender = world.someone()
    amount = world.spendable(sender) + choose.randint(1, 10**18)
    return message_class(f"{PACKAGE}.MsgSend")(from_address=sender.text, to_address=world.someone().text, amount=[coin(amount)])


def multi_send(choose: random.Random, world: World) -> Any:
    sender, count = world.someone(), choose.randint(1, 5)
    each = world.part_of(world.spendable(sender)) // count or 1
    message = message_class(f"{PACKAGE}.MsgMultiSend")()
    message.inputs.add(address=sender.text, coins=[coin(each * count)])
    for _ in range(count):
        message.outputs.add(address=world.someone().text, coins=[coin(each)])
    return message


def burn(choose: random.Random, world: World) -> Any:
    sender = world.someone()
    return message_class(f"{PACKAGE}.MsgBurn")(from_address=sender.text, amount=[coin(choose.randint(1, 10**15))])


OPERATIONS = (Kind("send", 100, send), Kind("send too much", 5, send_too_much), Kind("multi send", 30, multi_send), Kind("burn", 5, burn))
