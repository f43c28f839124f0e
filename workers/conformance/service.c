/* The methods of the conformance service. */
#include "service.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOB_MOST = 64 << 20 };

static atomic_uint_fast64_t notifications;

static crew_status echo(crew_call *call)
{
    const crew_value *params = crew_call_params(call);
    bool one = crew_value_type(params) == CREW_TYPE_ARRAY && crew_value_count(params) == 1;
    return crew_reply_value(call, one ? crew_value_at(params, 0) : params);
}

static crew_status add(crew_call *call)
{
    return crew_reply_double(call, crew_arg_double(call, 0) + crew_arg_double(call, 1));
}

static crew_status subtract(crew_call *call)
{
    return crew_reply_double(call, crew_arg_double(call, 0) - crew_arg_double(call, 1));
}

static crew_status sum(crew_call *call)
{
    double total = 0;
    for (size_t i = 0; i < crew_arg_count(call); i++)
        total += crew_arg_double(call, i);
    return crew_reply_double(call, total);
}

static crew_status take_note(crew_call *call)
{
    if (crew_call_is_one_way(call))
        atomic_fetch_add(&notifications, 1);
    return crew_reply_null(call);
}

static crew_status get_data(crew_call *call)
{
    return crew_reply(call, "[s,i]", "hello", 5);
}

static crew_status headers(crew_call *call)
{
    return crew_reply_value(call, crew_call_headers(call));
}

static crew_status peer(crew_call *call)
{
    return crew_reply_string(call, crew_str(crew_call_peer_name(call)));
}

/* The caller's own method, called back over its connection. */
static crew_status ask_caller(crew_call *call)
{
    char method[100];
    crew_client *caller = NULL;
    crew_result *result = NULL;
    crew_error why;
    (void)snprintf(method, sizeof method, "%.*s", CREW_STR(crew_arg_string(call, 0)));
    crew_status status = crew_call_client(call, &caller, &why);
    while (status == CREW_OVERLOADED && !crew_call_cancelled(call)) /* another handler is making it */
        status = crew_call_client(call, &caller, &why);
    if (status == CREW_OK)
        status = crew_client_call_value(caller, method, crew_arg(call, 1),
                                        &(crew_call_options){ .within = call }, &result, &why);
    status = status == CREW_OK ? crew_reply_value(call, crew_result_value(result))
                               : crew_fail(call, 1, "the caller: %s", why.message);
    crew_result_free(result);
    crew_client_free(caller);
    return status;
}

static crew_status sleep_ms(crew_call *call)
{
    uint64_t ms = crew_arg_uint(call, 0);
    struct timespec left = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
    return crew_reply_uint(call, ms);
}

static crew_status fail(crew_call *call)
{
    return crew_fail_value(call, crew_arg_int(call, 0), crew_arg_string(call, 1), crew_arg(call, 2));
}

static crew_status reverse(crew_call *call)
{
    crew_string data = crew_arg_bytes(call, 0);
    char *out = malloc(data.size + 1);
    if (!out)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < data.size; i++)
        out[i] = data.data[data.size - 1 - i];
    crew_status status = crew_reply_bytes(call, (crew_string){ out, data.size });
    free(out);
    return status;
}

static crew_status blob(crew_call *call)
{
    uint64_t size = crew_arg_uint(call, 0);
    if (size > BLOB_MOST)
        return crew_fail_param(call, 0, "is at most %d", BLOB_MOST);
    char *text = malloc(size + 1);
    if (!text)
        return CREW_NO_MEMORY;
    memset(text, 'x', size);
    crew_status status = crew_reply_string(call, (crew_string){ text, size });
    free(text);
    return status;
}

static crew_status whoami(crew_call *call)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%ld", (long)getpid());
    return crew_reply_string(call, crew_str(text));
}

static crew_status count(crew_call *call)
{
    return crew_reply_uint(call, atomic_load(&notifications));
}

static const crew_method methods[] = {
    { "echo", echo, NULL, "any", "Its only param, or all of them as array or object." },
    { "add", add, "a:number b:number", "number", "Returns a + b." },
    { "sum", sum, "numbers:number...", "number", "The sum of all params." },
    { "subtract", subtract, "minuend:number subtrahend:number", "number", "Returns minuend - subtrahend." },
    { "notify_hello", take_note, NULL, "null", "Counts itself, if nobody waits for an answer." },
    { "update", take_note, NULL, "null", "The same." },
    { "get_data", get_data, "", "array", "Always [\"hello\", 5]." },
    { "headers", headers, "", "any", "What came beside the message: an object or null." },
    { "peer", peer, "", "string", "Who the caller is, where that is sure." },
    { "ask_caller", ask_caller, "method:string params:array", "any",
      "What its caller answers to that call." },
    { "sleep_ms", sleep_ms, "ms:uint", "uint", "Returns ms, after that time." },
    { "fail", fail, "code:int message:string data:any?", "null", "Fails with that error." },
    { "blob", blob, "size:uint", "string", "That many x." },
    { "reverse", reverse, "data:bytes", "bytes", "The bytes, the last one first." },
    { "whoami", whoami, "", "string", "The process id." },
    { "count", count, "", "uint", "How many notifications came." },
    { 0 },
};

const crew_service conformance_service = {
    .name = "conformance",
    .version = "1.0.0",
    .doc = "For tests and peers: one method for each thing that can be got wrong.",
    .methods = methods,
};
