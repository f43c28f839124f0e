/* A handler whose own call has failed. */
#include "core/value.h"

#include <rpcrew/client.h>
#include <rpcrew/service.h>

/* The data with what is known of the execution in it. Of an answer that came, they may say it already, and
 * otherwise than the caller knows it by now: it may have sent the call twice. */
static const crew_value *with_executed(crew_arena *arena, const crew_value *data, const crew_error *why)
{
    const crew_value *executed, *made = NULL;
    if (crew_pack(arena, &executed, "s", crew_executed_name(why->executed)) == CREW_OK)
        made = crew_value_with_ours(arena, data, "executed", executed);
    return made ? made : data; /* then it is not told */
}

crew_status crew_fail_from(crew_call *call, int64_t code, const crew_result *result, const crew_error *why)
{
    static const crew_error unknown = { .status = CREW_DISCONNECTED, .executed = CREW_EXECUTED_UNKNOWN };
    crew_arena *arena = crew_call_arena(call);
    const crew_error *error = why ? why : &unknown;
    bool reserved = error->code >= CREW_CODE_RESERVED_FIRST && error->code <= CREW_CODE_RESERVED_LAST;
    if (error->status != CREW_REMOTE_ERROR || reserved)
        return crew_fail_value(call, code, (crew_string){ 0 }, with_executed(arena, NULL, error));
    const crew_value *data = crew_result_error_data(result);
    if (error->executed != CREW_EXECUTED_YES) /* which it means by itself */
        data = with_executed(arena, data, error);
    return crew_fail_value(call, error->code, crew_str(error->peer_message), data);
}
