import BlkFront
import RigSupport

/// One disk, read and written with as many requests in flight as the ring has slots.
final class Disk {
  enum WriteKind { case write, barrier }

  let device: BlkFrontDevice
  let loop: FrontLoop
  let geometry: BlockGeometry
  private var failure: Failure?

  init(at path: String, options: BlkFrontOptions) throws {
    let device = BlkFrontDevice(options)
    self.device = device
    let loop = try FrontLoop(device, at: path)
    self.loop = loop
    _ = loop.run(seconds: 20, descriptor: { nil }, device: { 0 }, until: { device.isConnected })
    guard device.isConnected, let geometry = device.geometry else {
      throw Failure("the disk does not connect: \(loop.bus.report.joined(separator: "; "))")
    }
    self.geometry = geometry
  }

  private var byteCount: Int { Int(geometry.sectorCount) * BlkIf.sectorByteCount }

  /// Reads the whole disk, in pieces of many lengths, into a new file.
  func read(to path: String) throws {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    try transfer(byteCount) { [device] place throws(BlkFrontError) in
      try device.read(sector: sector(of: place.lowerBound), byteCount: place.count, tag: UInt64(place.lowerBound))
    } completed: { completion in
      let place = Int(completion.tag)
      bytes.replaceSubrange(place..<place + completion.byteCount, with: completion.copied())
    }
    try RigProgram.write(bytes, to: path)
    RigProgram.say("read \(byteCount) bytes")
  }

  /// Writes `bytes` to the disk's start; when this returns they are on the medium.
  func write(_ bytes: [UInt8], as kind: WriteKind) throws {
    try transfer(bytes.count, as: kind) { [device] place throws(BlkFrontError) in
      let payload = bytes.span.extracting(place)
      let sector = sector(of: place.lowerBound)
      switch kind {
      case .write: try device.write(sector: sector, payload, tag: UInt64(place.lowerBound))
      case .barrier: try device.writeBarrier(sector: sector, payload, tag: UInt64(place.lowerBound))
      }
    }
    if kind == .write {
      guard try flush() == .succeeded else { throw Failure("the backend does not flush") }
    }
    RigProgram.say("wrote \(bytes.count) bytes")
  }

  /// Our end refuses a write before it is sent. A flush counts as a write too, to Linux's backend, and that is its own word.
  func refuseWrites() throws {
    let sectorBytes = [UInt8](repeating: 0xEE, count: Int(geometry.sectorByteCount))
    do throws(BlkFrontError) {
      try device.write(sector: 0, sectorBytes.span, tag: 0)
      throw .notSupported("refusing a write to a disk that should be read-only")
    } catch {
      guard case .readOnlyDisk = error else { throw error }
    }
    let result = try flush()
    guard result == .failed else { throw Failure("the backend of a read-only disk answers a flush as \(result)") }
    RigProgram.say("refused")
  }

  /// Tells the disk that `count` sectors from `sector` on are not needed any more.
  func discard(sector: UInt64, count: UInt64, isSecure: Bool) throws {
    try device.discard(sector: sector, sectorCount: count, isSecure: isSecure, tag: UInt64.max)
    let result = try waitForLast("a discard")
    guard result == .succeeded else { throw Failure("the backend answers a discard as \(result)") }
    RigProgram.say("discarded \(count) sectors")
  }

  private func flush() throws -> BlkFrontCompletion.Result {
    try device.flush(tag: UInt64.max)
    return try waitForLast("a flush")
  }

  private func waitForLast(_ what: String) throws -> BlkFrontCompletion.Result {
    var result: BlkFrontCompletion.Result?
    device.push()
    try run(what) { completion in
      result = completion.result
    } until: {
      result != nil
    }
    return result!
  }

  private func sector(of place: Int) -> UInt64 { UInt64(place / BlkIf.sectorByteCount) }

  /// Puts requests for all of `byteCount` bytes and waits until all have completed.
  private func transfer(
    _ byteCount: Int, as kind: WriteKind? = nil, put: (Range<Int>) throws(BlkFrontError) -> Void,
    completed: (BlkFrontCompletion) -> Void = { _ in }
  ) throws {
    var next = 0
    var done = 0
    var number = 0
    while done < byteCount {
      while next < byteCount {
        // One sector, what a request carries at most, what a direct one does, and lengths between that end in the middle of a
        // page.
        let longest = kind == .barrier || number % 3 == 0 ? BlkFrontDevice.maxDirectByteCount : device.maxByteCount
        let length = min(byteCount - next, number % 7 == 0 ? 512 : longest - number % 5 * 512)
        do throws(BlkFrontError) { try put(next..<next + length) } catch {
          if case .busy = error { break }
          throw error
        }
        lengths[UInt64(next)] = length
        next += length
        number += 1
      }
      device.push()
      let before = done
      try run("a request") { completion in
        guard completion.result == .succeeded else {
          failure = Failure("the request at byte \(completion.tag) ended as \(completion.result)")
          return
        }
        done += lengths.removeValue(forKey: completion.tag) ?? 0
        completed(completion)
      } until: {
        done > before
      }
    }
  }

  /// What is in flight, by tag.
  private var lengths: [UInt64: Int] = [:]

  private func run(
    _ what: String, completed: (BlkFrontCompletion) -> Void, until condition: () -> Bool
  ) throws {
    // SIGTERM waits for the end of the round, so it ends no wait here.
    let start = Uptime.now.nanoseconds
    var held = false
    while !held, failure == nil, Double(Uptime.now.nanoseconds - start) < 20e9 {
      held = loop.run(
        seconds: 1, descriptor: { device.descriptor }, device: { device.poll(completed) },
        until: { failure != nil || condition() })
    }
    if let failure { throw failure }
    guard held else { throw Failure("\(what) is not answered: \(loop.bus.report.joined(separator: "; "))") }
  }
}
