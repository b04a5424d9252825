import XenPlatform
import XenRing

/// What a benchmark needs of a protocol's entries.
protocol BenchmarkedProtocol {
  associatedtype Request: BitwiseCopyable
  associatedtype Response: BitwiseCopyable

  /// A request with every field zero.
  static var empty: Request { get }
  /// Sets what differs between two requests.
  static func fill(_ request: inout Request, _ number: UInt64)
  /// Reads every field that the request uses, and sums them up.
  static func read(_ request: Request) -> UInt64
  static func answer(_ request: Request) -> Response
  static func id(of request: Request) -> UInt64
  static func id(of response: Response) -> UInt64
}

/// The sizes of a disk's ring (`blkif_request_t`, `blkif_response_t`, io/blkif.h).
enum BlockShape: BenchmarkedProtocol {
  struct Segment: BitwiseCopyable { var grant: UInt32, firstSector: UInt8, lastSector: UInt8, padding: UInt16 = 0 }
  struct Request: BitwiseCopyable {
    var operation: UInt8, segmentCount: UInt8, handle: UInt16, padding: UInt32 = 0
    var id: UInt64, sector: UInt64
    var segments: InlineArray<11, Segment>
  }
  struct Response: BitwiseCopyable {
    var id: UInt64, operation: UInt8, padding: UInt8 = 0, status: Int16, tail: UInt32 = 0
  }

  static var empty: Request {
    Request(
      operation: 0, segmentCount: 0, handle: 0, id: 0, sector: 0,
      segments: InlineArray(repeating: Segment(grant: 0, firstSector: 0, lastSector: 0)))
  }

  static func fill(_ request: inout Request, _ number: UInt64) {
    request.segmentCount = 1
    request.id = number
    request.sector = number &* 8
    request.segments[0].grant = UInt32(truncatingIfNeeded: number)
    request.segments[0].lastSector = 7
  }

  static func read(_ request: Request) -> UInt64 {
    let count = Int(request.segmentCount)
    guard count <= request.segments.count else { return 0 }
    var sum = UInt64(request.operation) &+ UInt64(request.handle) &+ request.sector
    for place in 0..<count {
      let segment = request.segments[place]
      sum &+= UInt64(segment.grant) &+ UInt64(segment.firstSector) &+ UInt64(segment.lastSector)
    }
    return sum
  }

  static func answer(_ request: Request) -> Response {
    Response(id: request.id, operation: request.operation, status: 0)
  }

  static func id(of request: Request) -> UInt64 { request.id }
  static func id(of response: Response) -> UInt64 { response.id }
}

/// The sizes of a network card's transmit ring (`netif_tx_request_t`, `netif_tx_response_t`, io/netif.h).
enum TransmitShape: BenchmarkedProtocol {
  struct Request: BitwiseCopyable { var grant: UInt32, offset: UInt16, flags: UInt16, id: UInt16, size: UInt16 }
  struct Response: BitwiseCopyable { var id: UInt16, status: Int16 }

  static var empty: Request { Request(grant: 0, offset: 0, flags: 0, id: 0, size: 0) }

  static func fill(_ request: inout Request, _ number: UInt64) {
    request.grant = UInt32(truncatingIfNeeded: number)
    request.id = UInt16(truncatingIfNeeded: number)
    request.size = 1500
  }

  static func read(_ request: Request) -> UInt64 {
    UInt64(request.grant) &+ UInt64(request.offset) &+ UInt64(request.flags) &+ UInt64(request.size)
  }

  static func answer(_ request: Request) -> Response { Response(id: request.id, status: 0) }

  static func id(of request: Request) -> UInt64 { UInt64(request.id) }
  static func id(of response: Response) -> UInt64 { UInt64(response.id) }
}

/// As many as the largest ring has slots.
let shadowCount = 4096

/// Sends `trips` requests around a ring, `batch` at a time, and returns a sum of what was read from requests and
/// responses.
///
/// The same steps as the C twin's: the front end makes each request anew, keeps what differs in a shadow, and finds that again by
/// the response's id; the back end reads every field that the request uses, and each end looks once more before it would sleep.
func roundTrips<Shape: BenchmarkedProtocol>(
  _ shape: Shape.Type, over pages: PrivatePages, batch: UInt32, trips: UInt64
) throws(RingViolation) -> UInt64 {
  var front = FrontRing<Shape.Request, Shape.Response>(initialising: pages.region())
  var back = BackRing<Shape.Request, Shape.Response>(attaching: pages.region())
  // Safe: the remainder keeps every place inside the table, and each is initialised.
  let shadows = UnsafeMutablePointer<Shape.Request>.allocate(capacity: shadowCount)
  unsafe shadows.initialize(repeating: Shape.empty, count: shadowCount)
  defer { unsafe shadows.deallocate() }
  var sum: UInt64 = 0
  var notifications: UInt64 = 0
  var done: UInt64 = 0
  while done < trips {
    for place in 0..<batch {
      let number = done &+ UInt64(place)
      let shadow = unsafe shadows + Int(truncatingIfNeeded: number % UInt64(shadowCount))
      unsafe Shape.fill(&shadow.pointee, number)
      var request = Shape.empty
      Shape.fill(&request, number)
      front.put(request)
    }
    if front.pushAndCheckNotify() { notifications &+= 1 }
    repeat {
      _ = try back.available()
      while let request = back.next() {
        sum &+= Shape.read(request)
        back.put(Shape.answer(request))
      }
      if back.pushAndCheckNotify() { notifications &+= 1 }
    } while try back.finalCheck()
    repeat {
      _ = try front.available()
      while let response = front.next() {
        let id = Shape.id(of: response)
        guard unsafe Shape.id(of: shadows[Int(truncatingIfNeeded: id % UInt64(shadowCount))]) == id else {
          fatalError("unknown id")
        }
        sum &+= id
      }
    } while try front.finalCheck()
    done &+= UInt64(batch)
  }
  return notifications == 2 * (trips / UInt64(batch)) ? sum : 0
}
