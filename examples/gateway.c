/* A service in front of another: what comes in over HTTP is asked of a worker behind RabbitMQ, and no thread
 * waits meanwhile. With --admin, its own calls are at its
 * /metrics, beside those that it serves.
 *
 *   gateway --calc 'amqp://localhost/?queue=calc' --listen http://127.0.0.1:8080/ --admin
 * http://127.0.0.1:9464
 */
#include <rpcrew.h>

#include <stdio.h>

enum { NO_ANSWER = 504, UNAVAILABLE = 503 };

struct gateway {
    const char *url;
    crew_client *calc;
};

/* What calc itself says is passed on. Where calc is, and why it did not answer, is for our log, not for
 * callers. */
static crew_status pass_on_error(crew_call *call, const crew_result *result, const crew_error *why)
{
    if (why->status != CREW_REMOTE_ERROR)
        crew_log(CREW_LOG_WARN, "calc", "{s:s}", "why", why->message);
    return crew_fail_from(call, why->executed == CREW_EXECUTED_NO ? UNAVAILABLE : NO_ANSWER, result, why);
}

/* On the client's thread: it must not block, and completing a call does not. A reply that cannot be sent is
 * in the log. */
static void answer(void *context, crew_result *result, const crew_error *why)
{
    crew_call *call = context;
    (void)(why->status == CREW_OK ? crew_reply_value(call, crew_result_value(result))
                                  : pass_on_error(call, result, why));
    crew_result_free(result);
}

/* The caller's deadline is the worker's as well (within); a caller who has gone is no reason to stop it. */
static crew_status ask(crew_call *call)
{
    const struct gateway *gateway = crew_call_context(call);
    const crew_call_options options = { .within = call, .retry = CREW_RETRY_OVERLOADED };
    crew_string name = crew_call_method(call);
    char method[20];
    crew_error why;
    (void)snprintf(method, sizeof method, "%.*s", CREW_STR(name));
    crew_call *later = crew_call_defer(call);
    crew_status status = crew_client_start_value(gateway->calc, method, crew_call_params(call), &options,
                                                 answer, later, NULL, &why);
    return status == CREW_OK ? CREW_OK : pass_on_error(later, NULL, &why);
}

static const crew_method methods[] = {
    { .name = "subtract",
      .handler = ask,
      .params = "minuend:number subtrahend:number",
      .result = "number",
      .doc = "Returns minuend - subtrahend." },
    { 0 },
};

static const crew_service_error errors[] = {
    { UNAVAILABLE, "UNAVAILABLE", "calc did not take the call" },
    { NO_ANSWER, "NO_ANSWER", "calc did not answer, and may have run it" },
    { 0 },
};

/* ---- the program ---- */

static crew_status set_calc(void *context, const char *value, crew_error *why)
{
    struct gateway *gateway = context;
    (void)why;
    gateway->url = value;
    return CREW_OK;
}

static crew_status set_up(void *context, crew_dispatcher *dispatcher, crew_server *server, crew_error *why)
{
    struct gateway *gateway = context;
    (void)dispatcher;
    if (!gateway->url)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "wants --calc URL");
    const crew_client_options options = { .timeout_ms = 5000, .metrics = crew_server_metrics(server) };
    return crew_client_new(&gateway->calc, gateway->url, &options, why);
}

/* Behind the last call: what is outstanding has been answered by then. */
static void ended(void *context)
{
    const struct gateway *gateway = context;
    crew_client_free(gateway->calc);
}

int main(int argc, char **argv)
{
    static const crew_worker_flag flags[] = {
        { .name = "calc", .value = "URL", .help = "where calc is called", .set = set_calc },
        { 0 },
    };
    static const crew_service service = {
        .name = "gateway", .version = "1.0.0", .methods = methods, .errors = errors
    };
    struct gateway gateway = { 0 };
    const crew_worker_options options = {
        .context = &gateway, .flags = flags, .set_up = set_up, .ended = ended
    };
    return crew_worker_main_with(argc, argv, &service, &options);
}
