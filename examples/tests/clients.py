"""A client of NATS that is no slipring program: what it gets, it prints as JSON, one value a line.

clients.py SERVER call SUBJECT JSON      a request, and its answer
clients.py SERVER ask SUBJECT            a question to services, such as $SRV.INFO, and the first answer
clients.py SERVER publish SUBJECT JSON   an event
clients.py SERVER follow SUBJECT         "subscribed", and then the first event
"""

import asyncio
import json
import sys

import nats

SECONDS = 30


async def main(server, command, subject, *payload):
    client = await nats.connect(f"nats://{server}")
    data = "".join(payload).encode()
    if command in ("call", "ask"):
        answer = await client.request(subject, data, timeout=SECONDS)
        show(json.loads(answer.data))
        show(dict(answer.headers or {}))
    elif command == "publish":
        await client.publish(subject, data)
    elif command == "follow":
        events = await client.subscribe(subject)
        await client.flush()
        show("subscribed")
        event = await events.next_msg(timeout=SECONDS)
        show(json.loads(event.data))
    else:
        sys.exit(__doc__)
    await client.drain()


def show(value):
    print(json.dumps(value), flush=True)


asyncio.run(main(*sys.argv[1:]))
