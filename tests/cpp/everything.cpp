// All tests in one: one compilation for each compiler and standard.
#include "client_test.cpp"
#include "consume_test.cpp"
#include "coroutine_test.cpp"
#include "json_test.cpp"
#include "survival_test.cpp"
