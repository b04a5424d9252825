// The README shows this file from here on; docs/check holds the two together.

import BlkBack

/// A disk that reads as zeros and takes every write.
final class ZeroStore: BlockStore {
  let geometry = BlockGeometry(sectorCount: 1 << 21)  // 512-byte sectors

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      if requests[index].kind == .read { requests[index].payload.zero() }
      completions.complete(requests[index])
    }
  }
}

func serveZeros(on platform: any Platform) throws -> Bus {
  let bus = try Bus(on: platform)
  try bus.register(BlkBackDriver(type: "zero") { _ in ZeroStore() })
  return bus  // bus.run { false } serves until the process ends
}
