/* A handler whose own call has failed. */
#include <rpcrew/client.h>
#include <rpcrew/service.h>

crew_status crew_fail_from(crew_call *call, int64_t code, const crew_result *result, const crew_error *why)
{
    const crew_value *data = NULL;
    bool reserved = why->code >= CREW_CODE_RESERVED_FIRST && why->code <= CREW_CODE_RESERVED_LAST;
    if (why->status == CREW_REMOTE_ERROR && !reserved)
        return crew_fail_value(call, why->code, crew_str(why->peer_message), crew_result_error_data(result));
    if (crew_pack(crew_call_arena(call), &data, "{s:{s:s}}", "rpcrew", "executed",
                  crew_executed_name(why->executed)) != CREW_OK)
        data = NULL; /* then it is not told */
    return crew_fail_value(call, code, (crew_string){ 0 }, data);
}
