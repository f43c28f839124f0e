#include <rpcrew.h>

#include <stdio.h>

static crew_status hello(crew_call *call)
{
    return crew_reply(call, "s", "hello");
}

static const crew_method methods[] = { { .name = "hello", .handler = hello, .params = "" }, { 0 } };

int main(void)
{
    static const crew_service service = { .name = "consumer", .methods = methods };
    crew_dispatcher *dispatcher = NULL;
    crew_bytes answer = { 0 };
    if (crew_dispatcher_new(&dispatcher) != CREW_OK ||
        crew_dispatcher_add(dispatcher, "", &service, NULL, NULL) != CREW_OK ||
        crew_handle(dispatcher, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"hello\",\"id\":1}"), NULL,
                    &answer) != CREW_OK)
        return 1;
    (void)puts(answer.data);
    crew_bytes_free(&answer);
    crew_dispatcher_free(dispatcher);
    return 0;
}
