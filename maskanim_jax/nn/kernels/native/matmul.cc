// The product of matmul.h, compiled once for all its users.

#include "matmul.h"

namespace maskanim {

void Multiply(int rows, int vectors, const Operands& with, float* c, int64_t c_row, bool add) {
  ProductOfRows<kRows>(rows, vectors, with, c, c_row, add);
}

}  // namespace maskanim
