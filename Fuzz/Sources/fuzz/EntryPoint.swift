import FuzzTargets
import Glibc

/// What the environment's FUZZ_TARGET names, once.
private let target: FuzzTarget = {
  // Safe: nobody changes the environment.
  let name = unsafe getenv("FUZZ_TARGET").map { unsafe String(cString: $0) } ?? ""
  guard let target = FuzzTarget(rawValue: name) else {
    fatalError("FUZZ_TARGET is none of \(FuzzTarget.allCases.map(\.rawValue).joined(separator: " "))")
  }
  return target
}()

/// What libFuzzer calls for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  // Safe: libFuzzer's bytes are there during the call.
  target.run(unsafe Array(UnsafeBufferPointer(start: start, count: count)))
  return 0
}
