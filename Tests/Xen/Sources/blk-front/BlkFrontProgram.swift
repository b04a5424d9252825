import BlkFront
import RigSupport

/// Uses the disk at a frontend directory.
///
/// usage: blk-front FRONTEND-PATH read FILE       the whole disk into the file
///        blk-front FRONTEND-PATH write FILE      the file onto the disk from its start on, and a flush
///        blk-front FRONTEND-PATH barrier FILE    the same in writes that are barriers
///        blk-front FRONTEND-PATH rewrite FILE    the same as write, over and over until SIGTERM; says when the disk's size changes
///        blk-front FRONTEND-PATH discard SECTOR COUNT    so many sectors of 512 bytes from there on; secure-discard the same
///        blk-front FRONTEND-PATH refuse          fails unless the disk refuses to be written
///
/// Before all of it:
///        --protocol LAYOUT    x86_32-abi or x86_64-abi
///        --queues N           the most queues; one unless given
///        --ring-order N       two to the power of this pages a ring at most; one page unless given
///        --indirect N         the most segments of a request; up to 11 makes no indirect ones
///        --pool N             pages of payload a queue
///        --persistent, --no-persistent
///
/// The first lines say what was agreed on.
@main struct BlkFrontProgram {
  static func main() {
    RigProgram.run { arguments in
      var arguments = arguments
      let options = try takeOptions(&arguments)
      guard arguments.count >= 2 else {
        throw Failure("usage: blk-front [OPTION...] FRONTEND-PATH COMMAND [ARGUMENT...]")
      }
      let disk = try Disk(at: arguments[0], options: options)
      RigProgram.say("\(disk.device.negotiation)\n\(disk.geometry)")
      switch (arguments[1], arguments.count) {
      case ("read", 3): try disk.read(to: arguments[2])
      case ("write", 3): try disk.write(RigProgram.bytes(of: arguments[2]), as: .write)
      case ("barrier", 3): try disk.write(RigProgram.bytes(of: arguments[2]), as: .barrier)
      case ("rewrite", 3):
        let bytes = try RigProgram.bytes(of: arguments[2])
        var (rounds, sectorCount) = (0, disk.geometry.sectorCount)
        while !RigProgram.isStopRequested {
          try disk.write(bytes, as: .write)
          rounds += 1
          RigProgram.say("round \(rounds) is written")
          guard let now = disk.device.geometry?.sectorCount, now != sectorCount else { continue }
          sectorCount = now
          RigProgram.say("the disk has \(sectorCount) sectors")
        }
      case ("discard", 4), ("secure-discard", 4):
        guard let sector = UInt64(arguments[2]), let count = UInt64(arguments[3]) else {
          throw Failure("\(arguments[1]) takes two numbers of sectors")
        }
        try disk.discard(sector: sector, count: count, isSecure: arguments[1] == "secure-discard")
      case ("refuse", 2): try disk.refuseWrites()
      default: throw Failure("blk-front does not know \(arguments.dropFirst().joined(separator: " "))")
      }
      guard disk.loop.unannouncedCount == 0 else {
        throw Failure("\(disk.loop.unannouncedCount) times something had come and no event said so")
      }
      try disk.loop.leave()
      RigProgram.say("left")
    }
  }

  /// Takes the options out.
  private static func takeOptions(_ arguments: inout [String]) throws -> BlkFrontOptions {
    var options = BlkFrontOptions()
    while let name = arguments.first, name.hasPrefix("--") {
      arguments.removeFirst()
      switch name {
      case "--persistent": options.usesPersistentGrants = true
      case "--no-persistent": options.usesPersistentGrants = false
      case "--queues": options.maxQueueCount = try takeNumber(&arguments, name, 1...64)
      case "--ring-order": options.maxRingPageOrder = try takeNumber(&arguments, name, 0...4)
      case "--indirect":
        options.maxIndirectSegmentCount = try takeNumber(&arguments, name, 0...BlkIf.maxIndirectSegmentCount)
      case "--pool": options.poolPageCount = try takeNumber(&arguments, name, BlkIf.maxSegmentCount...Int(UInt16.max))
      case "--protocol":
        guard let layout = arguments.first.flatMap(BlkProtocol.init(rawValue:)) else {
          throw Failure("--protocol takes one of \(BlkProtocol.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        options.layout = layout
        arguments.removeFirst()
      default: throw Failure("blk-front does not know \(name)")
      }
    }
    return options
  }

  private static func takeNumber(_ arguments: inout [String], _ name: String, _ range: ClosedRange<Int>) throws -> Int {
    guard let number = arguments.first.flatMap({ Int($0) }), range.contains(number) else {
      throw Failure("\(name) takes a number from \(range.lowerBound) to \(range.upperBound)")
    }
    arguments.removeFirst()
    return number
  }
}
