/* Handlers under test, without a broker or a port: server and client in one process, over inproc://. Params
 * are bound and checked, calls run on the pool, and answers are encoded as they would be anywhere else. */
#include <rpcrew.h>

#include <stdio.h>

/* ---- the service; in a program of its own it is in a file that the worker and this share ---- */

enum { DIVISION_BY_ZERO = 1 };

static crew_status divide(crew_call *call)
{
    if (crew_arg_double(call, 1) == 0)
        return crew_fail(call, DIVISION_BY_ZERO, "%g / 0", crew_arg_double(call, 0));
    return crew_reply_double(call, crew_arg_double(call, 0) / crew_arg_double(call, 1));
}

static const crew_method methods[] = {
    { .name = "divide", .handler = divide, .params = "dividend:number divisor:number", .result = "number" },
    { 0 },
};

static const crew_service service = { .name = "calc", .methods = methods };

/* ---- the test ---- */

static int failures;

#define CHECK(what) \
    ((what) ? (void)0 : (void)(failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what)))

static void test(crew_client *client)
{
    crew_result *result;
    crew_error why;
    double quotient = 0;
    CHECK(crew_client_call(client, "divide", &result, &why, "[ff]", 1.0, 4.0) == CREW_OK);
    CHECK(crew_value_double(crew_result_value(result), &quotient) == CREW_OK && quotient == 0.25);
    crew_result_free(result);

    CHECK(crew_client_call(client, "divide", NULL, &why, "{s:i,s:i}", "dividend", 5, "divisor", 0) ==
          CREW_REMOTE_ERROR);
    CHECK(why.code == DIVISION_BY_ZERO && strcmp(why.peer_message, "5 / 0") == 0);

    CHECK(crew_client_call(client, "divide", NULL, &why, "[s]", "five") == CREW_REMOTE_ERROR);
    CHECK(why.code == CREW_CODE_INVALID_PARAMS && why.executed == CREW_EXECUTED_NO);
}

int main(void)
{
    crew_dispatcher *dispatcher = NULL;
    crew_server *server = NULL;
    crew_client *client = NULL;
    crew_error why = { 0 };
    crew_status status = crew_dispatcher_new(&dispatcher);
    if (status == CREW_OK)
        status = crew_dispatcher_add(dispatcher, "", &service, NULL, &why);
    if (status == CREW_OK)
        status = crew_server_new(&server, dispatcher, NULL, &why);
    if (status == CREW_OK)
        status = crew_server_listen(server, "inproc://test", &why);
    if (status == CREW_OK)
        status = crew_server_start(server, &why);
    if (status == CREW_OK)
        status = crew_client_new(&client, "inproc://test", NULL, &why);
    if (status == CREW_OK)
        test(client);
    else
        (void)fprintf(stderr, "%s %s\n", crew_status_name(status), why.message);
    crew_client_free(client);
    crew_server_free(server);
    crew_dispatcher_free(dispatcher);
    return status != CREW_OK || failures;
}
