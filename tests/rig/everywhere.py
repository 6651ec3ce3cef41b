"""An interceptor that is asked about every message in one place."""

from __future__ import annotations

from shadowcat import Context, Interceptor, Message
from shadowcat.core.interceptor import Judgement


class Everywhere(Interceptor):
    def judge(self, message: Message, context: Context) -> Judgement:
        raise NotImplementedError

    def on_request(self, message: Message, context: Context) -> Judgement:
        return self.judge(message, context)

    def on_response(self, message: Message, context: Context) -> Judgement:
        return self.judge(message, context)

    def on_notification(self, message: Message, context: Context) -> Judgement:
        return self.judge(message, context)

    def on_server_request(self, message: Message, context: Context) -> Judgement:
        return self.judge(message, context)

    def on_server_response(self, message: Message, context: Context) -> Judgement:
        return self.judge(message, context)

    def on_server_notification(self, message: Message, context: Context) -> Judgement:
        return self.judge(message, context)
