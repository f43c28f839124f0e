/* The core alone: a JSON-RPC service over standard input and output, one message a line, no transport at all.
 *
 *   $ echo '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}' | stdio
 *   {"jsonrpc":"2.0","result":19,"id":1} */
#include <rpcrew.h>

#include <err.h>
#include <stdio.h>
#include <stdlib.h>

static crew_status subtract(crew_call *call)
{
    return crew_reply_double(call, crew_arg_double(call, 0) - crew_arg_double(call, 1));
}

static crew_status greet(crew_call *call)
{
    crew_string name = crew_arg_given(call, 0) ? crew_arg_string(call, 0) : crew_str("world");
    return crew_reply(call, "{s:S,s:i}", "hello", name, "letters", (int)name.size);
}

static const crew_method methods[] = {
    { "subtract", subtract, "minuend:number subtrahend:number", "number", "Returns minuend - subtrahend." },
    { "greet", greet, "name:string?", "object", "Greets." },
    { 0 },
};

int main(void)
{
    static const crew_service service = { .name = "stdio", .version = "1.0.0", .methods = methods };
    crew_dispatcher *dispatcher;
    crew_error why;
    if (crew_dispatcher_new(&dispatcher) != CREW_OK ||
        crew_dispatcher_add(dispatcher, "", &service, NULL, &why) != CREW_OK)
        errx(1, "cannot set up");

    char *line = NULL;
    size_t room = 0;
    for (ssize_t size; (size = getline(&line, &room, stdin)) > 0;) {
        crew_bytes answer;
        if (crew_handle(dispatcher, (crew_string){ line, (size_t)size },
                        &(crew_handle_options){ .content_type = "application/json" }, &answer) != CREW_OK)
            errx(1, "no memory");
        if (answer.size)
            printf("%.*s\n", (int)answer.size, (const char *)answer.data);
        crew_bytes_free(&answer);
    }
    free(line);
    crew_dispatcher_free(dispatcher);
    return 0;
}
