"""Answers of a server in one form, whole or put together from a stream, so that the two can be compared byte for byte."""
import http.client
import json


def request(server, path, body, connection=None):
    """(status, parsed answer or list of events) of a POST; `body` may be torn bytes."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), {"Content-Type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    if not response.headers["Content-Type"].startswith("text/event-stream"):
        return response.status, json.loads(data)
    events = data.decode().split("\n\n")
    assert events[-1] == "" and events[-2] == "data: [DONE]", events[-3:]
    return response.status, [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def empty():
    return {"text": "", "calls": [], "reason": None, "logprobs": {}}


def add_logprobs(out, logprobs):
    for key, values in (logprobs or {}).items():
        if values:
            out["logprobs"].setdefault(key, []).extend(values)


def of_whole(answer):
    """[choice], usage"""
    choices = []
    for choice in answer["choices"]:
        message = choice.get("message", {})
        out = {**empty(), "text": (message.get("content") or "") if message else choice["text"], "reason": choice["finish_reason"]}
        out["calls"] = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
        add_logprobs(out, choice["logprobs"])
        choices.append(out)
    return choices, answer["usage"]


def of_stream(events, count):
    choices, usage = [empty() for _ in range(count)], None
    for event in events:
        assert "error" not in event, event
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            out, delta = choices[choice["index"]], choice.get("delta", {})
            assert out["reason"] is None, "something came behind the end of a choice"
            out["text"] += (delta.get("content") or "") if "delta" in choice else choice["text"]
            for call in delta.get("tool_calls", []):
                if call["index"] == len(out["calls"]):
                    out["calls"].append((call["function"]["name"], ""))
                name, arguments = out["calls"][call["index"]]
                out["calls"][call["index"]] = (name, arguments + call["function"]["arguments"])
            add_logprobs(out, choice["logprobs"])
            out["reason"] = choice["finish_reason"]
    return choices, usage


def answer_of(server, path, body, stream=False, connection=None):
    """(status, choices, usage), or (status, error) when it was refused."""
    if stream:
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    status, answer = request(server, path, body, connection)
    if status != 200:
        return status, answer["error"]["message"]
    if not stream:
        return (status, *of_whole(answer))
    count = 1 + max((c["index"] for e in answer for c in e["choices"]), default=0)
    return (status, *of_stream(answer, count))
