// ldmatrix, mma.sync and wgmma, on the register layouts of the PTX manual. Products of 16-bit and
// tf32 operands are exact in float; sums are added in the order of k, which a GPU need not do.
#include "state.h"

namespace emu {

// ---- wgmma: runs when the first thread of the warpgroup waits for it ----------------------------
// Element (mn, k) of an operand in shared memory; k is contiguous unless `transposed`.
static float wgmma_operand(u64 descriptor, int kind, int mn, int k, bool transposed, void* pc) {
    auto field = [descriptor](int shift) { return (u32)(descriptor >> shift & 0x3fff) << 4; };
    const u32 start = field(0), leading = field(16), stride = field(32);
    static const int swizzle_modes[] = {0, 3, 2, 1};  // the descriptor counts the other way round
    const int swizzle = swizzle_modes[descriptor >> 62];
    const int itemsize = kind == EMU_TF32 ? 4 : 2, chunk = 16 / itemsize;
    const int row_bytes = 16 << swizzle, row_elements = row_bytes / itemsize;
    u32 offset = start;
    if (transposed) {
        offset += mn / row_elements * leading + k / 8 * stride + k % 8 * row_bytes + mn % row_elements * itemsize;
    } else {
        offset += mn / 8 * stride + mn % 8 * row_bytes;
        offset += swizzle ? k * itemsize : k / chunk * leading + k % chunk * itemsize;
    }
    offset = swizzled(offset, swizzle);
    const char* p = cluster->dynamic_shared + offset;
    if (offset + itemsize > cluster->launch->dynamic_bytes)
        fail("wgmma descriptor reaches shared offset %u, beyond the %llu bytes of the launch", offset,
             (unsigned long long)cluster->launch->dynamic_bytes);
    check_async_read("wgmma", p, itemsize, pc);
    u32 bits = 0;
    memcpy(&bits, p, itemsize);
    return to_float(kind, bits);
}

static void run_wgmma(Wgmma& w, void* pc) {
    if (w.done) return;
    w.done = true;
    cluster->stats[WGMMA]++;
    const int K = w.kind == EMU_TF32 ? 8 : 16;
    float a[64][16];
    std::vector<float> b((size_t)w.n * 16);
    for (int m = 0; m < 64; m++)
        for (int k = 0; k < K; k++) a[m][k] = wgmma_operand(w.a, w.kind, m, k, w.trans_a, pc);
    for (int n = 0; n < w.n; n++)
        for (int k = 0; k < K; k++) b[n * 16 + k] = wgmma_operand(w.b, w.kind, n, k, w.trans_b, pc);
    for (int thread = 0; thread < 128; thread++)
        for (int i = 0; i < w.n / 2; i++) {
            const int warp = thread / 32, lane = thread % 32;
            const int row = warp * 16 + lane / 4 + 8 * (i / 2 % 2), column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            float sum = 0;
            for (int k = 0; k < K; k++) sum += a[row][k] * b[column * 16 + k];
            float& d = w.d[thread][i];
            d = (w.scale_d ? d : 0) + sum;
        }
}

}  // namespace emu

using namespace emu;

extern "C" {
void emu_ldmatrix(uint32_t* r, const void* row, int matrices, int transposed, int line) {
    void* pc = CALLER_PC;
    if ((current->id & 31) < 8 * matrices) {  // these lanes give the rows' addresses
        if ((Address)row & 15) fail("misaligned ldmatrix row at " PC_FORMAT, relative_pc(pc));
        if (!is_shared(row)) fail("ldmatrix row outside shared memory at " PC_FORMAT, relative_pc(pc));
        check_access((Address)row, 16, READ, pc);
    }
    struct Ldmatrix {
        u32* r;
        const void* row;
    } mine{r, row};
    meet_all("ldmatrix", line, 32, &mine, [=](auto& fibers) {
        for (int m = 0; m < matrices; m++) {
            uint16_t x[8][8];
            u32 banks_used = 0;
            for (int i = 0; i < 8; i++) {
                const void* from = payload<Ldmatrix>(fibers[8 * m + i]).row;
                memcpy(x[i], from, 16);
                const u32 banks = 1u << ((Address)from / 16 & 7);
                cluster->stats[LDMATRIX_CONFLICTS] += (banks_used & banks) != 0;
                banks_used |= banks;
            }
            cluster->stats[LDMATRIX]++;
            for (int l = 0; l < 32; l++) {
                const int i = l / 4, j = l % 4 * 2;
                const u32 low = transposed ? x[j][i] : x[i][j], high = transposed ? x[j + 1][i] : x[i][j + 1];
                payload<Ldmatrix>(fibers[l]).r[m] = low | high << 16;
            }
        }
    });
}

void emu_stmatrix_x4_trans(void* row, const uint32_t* r, int line) {
    void* pc = CALLER_PC;
    if ((Address)row & 15) fail("misaligned stmatrix row at " PC_FORMAT, relative_pc(pc));
    if (!is_shared(row)) fail("stmatrix row outside shared memory at " PC_FORMAT, relative_pc(pc));
    check_access((Address)row, 16, WRITE, pc);
    struct Stmatrix {
        const u32* r;
        void* row;
    } mine{r, row};
    meet_all("stmatrix", line, 32, &mine, [](auto& fibers) {
        for (int l = 0; l < 32; l++)
            for (int m = 0; m < 4; m++)
                for (int e = 0; e < 2; e++) {
                    const uint16_t element = (uint16_t)(payload<Stmatrix>(fibers[l]).r[m] >> 16 * e);
                    uint16_t* to = (uint16_t*)payload<Stmatrix>(fibers[8 * m + l % 4 * 2 + e]).row;
                    memcpy(to + l / 4, &element, 2);
                }
    });
}

void emu_mma(int kind, float* d, const uint32_t* a, const uint32_t* b, int line) {
    struct Mma {
        float* d;
        const u32 *a, *b;
    } mine{d, a, b};
    meet_all("mma.sync", line, 32, &mine, [=](auto& fibers) {
        // A register holds `per` elements along k: K = 8 for tf32, 16 for the 16-bit types.
        const int per = kind == EMU_TF32 ? 1 : 2, K = 8 * per;
        float A[16][16], B[16][8];
        for (int l = 0; l < 32; l++) {
            const Mma& m = payload<Mma>(fibers[l]);
            const int group = l / 4, k0 = l % 4 * per;
            for (int e = 0; e < per; e++) {
                for (int i = 0; i < 4; i++)
                    A[group + 8 * (i % 2)][k0 + e + K / 2 * (i / 2)] = to_float(kind, m.a[i] >> 16 * e);
                for (int i = 0; i < 2; i++) B[k0 + e + K / 2 * i][group] = to_float(kind, m.b[i] >> 16 * e);
            }
        }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) {
                const int row = l / 4 + 8 * (i / 2), column = l % 4 * 2 + i % 2;
                float sum = 0;
                for (int k = 0; k < K; k++) sum += A[row][k] * B[k][column];
                payload<Mma>(fibers[l]).d[i] += sum;
            }
        cluster->stats[MMA]++;
    });
}

// An m x 8 x k multiplication, m = 8 or 16. Lane (group, t) holds column t of every 4 columns of A.
void emu_mma_f64(int m, int k, double* d, const double* a, const double* b, int line) {
    struct Mma {
        double* d;
        const double *a, *b;
    } mine{d, a, b};
    meet_all("mma.sync", line, 32, &mine, [=](auto& fibers) {
        const int halves = m / 8;
        double A[16][16], B[16][8];
        for (int l = 0; l < 32; l++) {
            const Mma& from = payload<Mma>(fibers[l]);
            const int group = l / 4, t = l % 4;
            for (int i = 0; i < halves * k / 4; i++) A[group + 8 * (i % halves)][t + 4 * (i / halves)] = from.a[i];
            for (int i = 0; i < k / 4; i++) B[t + 4 * i][group] = from.b[i];
        }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 2 * halves; i++) {
                const int row = l / 4 + 8 * (i / 2), column = l % 4 * 2 + i % 2;
                double& sum = payload<Mma>(fibers[l]).d[i];
                for (int j = 0; j < k; j++) sum += A[row][j] * B[j][column];
            }
        cluster->stats[MMA]++;
    });
}

void emu_wgmma(int kind, int n, float* d, uint64_t a, uint64_t b, int scale_d, int trans_a, int trans_b,
               int line) {
    struct Request {
        float* d;
        u64 a, b;
        bool scale_d;
        std::shared_ptr<Wgmma> wgmma;
    } mine{d, a, b, scale_d != 0, nullptr};
    meet_all("wgmma", line, 128, &mine, [&](auto& fibers) {
        auto wgmma = std::make_shared<Wgmma>(Wgmma{kind, n, mine.scale_d, trans_a, trans_b, a, b, {}});
        for (int i = 0; i < 128; i++) {
            Request& r = payload<Request>(fibers[i]);
            if (r.a != a || r.b != b || r.scale_d != mine.scale_d)
                fail("wgmma (line %d): descriptors differ between threads of the warpgroup", line);
            wgmma->d[i] = r.d;
            r.wgmma = wgmma;
        }
    });
    current->wgmmas.emplace_back(current->wgmma_group, mine.wgmma);
}

void emu_wgmma_commit() { current->wgmma_group++; }

void emu_wgmma_wait(int groups, int line) {
    auto& wgmmas = current->wgmmas;
    while (!wgmmas.empty() && wgmmas.front().first < current->wgmma_group - groups) {
        run_wgmma(*wgmmas.front().second, CALLER_PC);
        wgmmas.pop_front();
    }
    emu_syncwarp(~0u, line);  // the warp waits as one
}
}  // extern "C"
