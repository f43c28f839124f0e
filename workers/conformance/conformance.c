/* The conformance service as a worker. */
#include "service.h"

int main(int argc, char **argv)
{
    return crew_worker_main(argc, argv, &conformance_service);
}
