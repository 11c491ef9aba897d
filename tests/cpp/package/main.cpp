// A program of somebody who has installed libqueen.
#include <queen/queen.hpp>

int main() {
    queen::client client("embedded:");
    return client.queue("orders").push("1").get().string("/0/status") == "queued" ? 0 : 1;
}
