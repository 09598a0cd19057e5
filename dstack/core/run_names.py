"""Names of runs: kind words for people to say aloud, such as `calm-otter-7`."""

from __future__ import annotations

from dstack.model import RunName

_ADJECTIVES = """
able agile amber ample apt autumn bold brave breezy bright brisk busy calm candid careful cheerful clear clever
coral cosy crisp curious daring dawn deft eager early earnest easy fair famous fancy fleet fond free fresh
friendly gallant gentle glad golden good grand great green happy hardy hearty helpful honest humble jolly joyful
keen kind lively loyal lucky merry mellow mild mighty modest neat nimble noble patient placid playful pleasant
polite prime proud quick quiet ready rosy royal serene shiny silver smart snug social solid spry steady stout
sunny swift tidy tender trusty upbeat valiant vivid warm wise witty young zesty
"""
_ANIMALS = """
alpaca badger bear beaver bee bison bobcat camel canary cat cheetah cobra condor cougar crane cricket deer dingo
dolphin dove duck eagle egret elk emu falcon ferret finch fox gazelle gecko gibbon giraffe goat goose gopher
hare hawk hedgehog heron hippo horse ibex ibis iguana impala jackal jaguar kestrel kiwi koala lark lemur leopard
lion lizard llama lynx magpie marmot marten mole moose mouse newt ocelot octopus oriole osprey otter owl panda
panther parrot pelican penguin pigeon puffin puma quail rabbit raccoon raven robin salmon seal sparrow squid
stork swan tiger toucan turtle walrus weasel whale wolf wombat wren yak zebra
"""
ADJECTIVES = tuple(_ADJECTIVES.split())
ANIMALS = tuple(_ANIMALS.split())
NAME_NUMBERS = 99
NAME_COUNT = len(ADJECTIVES) * len(ANIMALS) * NAME_NUMBERS
"""How many names there are."""


def run_name(choice: int) -> RunName:
    """Name number `choice`, counted from 0 and modulo NAME_COUNT; two choices below NAME_COUNT give different names."""
    # Mixed radix: number, animal and adjective are the three digits of the choice.
    rest, number = divmod(choice % NAME_COUNT, NAME_NUMBERS)
    adjective, animal = divmod(rest, len(ANIMALS))
    return RunName(f"{ADJECTIVES[adjective]}-{ANIMALS[animal]}-{number + 1}")
