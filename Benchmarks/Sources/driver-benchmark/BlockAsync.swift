import BlkBack
import BlkFront
import Synchronization
import XenLoopback

/// Reads of 4 KiB by as many tasks as the batch is large, each of which waits for one before it asks for the next, with both
/// ends on threads; gives the number that succeeded.
///
/// What it costs depends on how the threads meet, so it has no row in driver-thresholds.txt: count its allocations.
func blockAsync(batch: Int, count: Int) throws -> Int {
  let loopback = Loopback()
  let driverDomain = loopback.addDomain()
  let guest = loopback.addDomain()
  let device = try Toolstack(on: driverDomain).addVbd(
    to: guest.domain, servedBy: driverDomain.domain, params: "memory")
  let backend = try BusThread(on: driverDomain) { (bus) throws(XenstoreError) in
    let store = MemoryStore(sectorCount: 1024)
    try bus.register(BlkBackDriver { _ in store })
    return nil
  }
  return try wait(servedBy: backend) { try await read(device.frontendPath, guest, taskCount: batch, count) }
}

private func read(_ path: String, _ guest: LoopbackDomain, taskCount: Int, _ count: Int) async throws -> Int {
  let disk = try await BlkFrontDisk.connect(to: path, on: guest)
  let succeeded = try await withThrowingTaskGroup(of: Int.self) { group in
    for task in 0..<taskCount {
      group.addTask {
        var succeeded = 0
        for _ in 0..<count / taskCount {
          let bytes = try await disk.read(sector: UInt64(task % 128) * 8, byteCount: 4096)
          if bytes.count == 4096 { succeeded += 1 }
        }
        return succeeded
      }
    }
    return try await group.reduce(0, +)
  }
  await disk.close()
  return succeeded
}

/// What a task of its own comes to, while `backend` runs.
func wait(servedBy backend: BusThread, for body: @escaping @Sendable () async throws -> Int) throws -> Int {
  let result = AsyncResult()
  Task.detached { await result.set(body) }
  defer {
    backend.end(within: 0)
    backend.join()
  }
  return try result.get()
}

/// What a task hands to the thread that waits for it.
private final class AsyncResult: Sendable {
  private let result = Mutex<Result<Int, any Error>?>(nil)
  private let wakeup: Wakeup

  init() { wakeup = try! Wakeup() }

  func set(_ body: () async throws -> Int) async {
    let value: Result<Int, any Error>
    do { value = .success(try await body()) } catch { value = .failure(error) }
    result.withLock { $0 = value }
    wakeup.signal()
  }

  func get() throws -> Int {
    Wakeup.wait(for: wakeup.descriptor)
    return try result.withLock { try $0!.get() }
  }
}
